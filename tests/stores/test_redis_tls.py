"""R3.2: TLS with a generated authority, host names and client certificates that are really checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from policy.spec import Retry
from policy.stores import RedisStore
from stores.model.errors import ConfigurationError, RunError
from stores.redis.connection.connect import connect
from stores.redis.store import RedisStore as Store
from tests.support.pki import CertificateAuthority
from tests.support.servers.redis_tls import EmbeddedTlsRedis
from tests.support.sync_world import KEYS, SECRET, InstantClock, Log

SETTINGS = RedisStore.model_validate({"urlFrom": SECRET, "keys": KEYS})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    authority = CertificateAuthority(directory)
    authority.issue_server("here", dns=["localhost"], addresses=["127.0.0.1"])
    authority.issue_server("elsewhere", dns=["redis.example"], addresses=["192.0.2.1"])
    authority.issue_client("cleaner", user="cleaner")
    other = tmp_path_factory.mktemp("other")
    CertificateAuthority(other)
    (directory / "other-ca.crt").write_bytes((other / "ca.crt").read_bytes())
    return directory


def serve(files: Path, name: str, *, client_certificates: bool = False) -> Iterator[EmbeddedTlsRedis]:
    with EmbeddedTlsRedis(
        files / "ca.crt", files / f"{name}.crt", files / f"{name}.key", client_certificates=client_certificates
    ) as server:
        yield server


@pytest.fixture(scope="module")
def here(files: Path, redis_tls_program: Path) -> Iterator[EmbeddedTlsRedis]:
    yield from serve(files, "here")


@pytest.fixture(scope="module")
def elsewhere(files: Path, redis_tls_program: Path) -> Iterator[EmbeddedTlsRedis]:
    yield from serve(files, "elsewhere")


@pytest.fixture(scope="module")
def strict(files: Path, redis_tls_program: Path) -> Iterator[EmbeddedTlsRedis]:
    yield from serve(files, "here", client_certificates=True)


def ask(url: str) -> RunError | None:
    store = Store(connect(url, SETTINGS), SETTINGS, Retry(attempts=0, delay_seconds=0), InstantClock(), Log())
    try:
        store.server_time()
    except RunError as error:
        return error
    finally:
        store.close()
    return None


def test_r3_2_a_server_whose_authority_is_named_is_trusted(here: EmbeddedTlsRedis, files: Path) -> None:
    assert ask(f"{here.url}?ssl_ca_certs={files}/ca.crt") is None
    assert ask(f"{here.url.replace('127.0.0.1', 'localhost')}?ssl_ca_certs={files}/ca.crt") is None


def test_a_login_over_tls_is_checked_with_the_first_attempt(here: EmbeddedTlsRedis, files: Path) -> None:
    with redis.Redis(host="127.0.0.1", port=here.port, ssl=True, ssl_ca_certs=str(files / "ca.crt")) as admin:
        # It may not even ask whether anybody is there.
        admin.execute_command("ACL", "SETUSER", "cleaner", "reset", "on", ">pw", "+time")
    url = here.url.replace("rediss://", "rediss://cleaner:{}@") + f"?ssl_ca_certs={files}/ca.crt"
    for _ in range(20):  # what the server sends after the handshake may come early or late
        assert ask(url.format("pw")) is None
    error = ask(url.format("wrong"))
    assert isinstance(error, ConfigurationError)
    assert "check user and password" in str(error)


@pytest.mark.parametrize("authority", ["", "?ssl_ca_certs={files}/other-ca.crt"])
def test_r3_2_any_other_server_is_refused(here: EmbeddedTlsRedis, files: Path, authority: str) -> None:
    error = ask(here.url + authority.format(files=files))
    assert isinstance(error, ConfigurationError)
    assert "certificate of Redis cannot be verified" in str(error)


def test_the_authority_may_come_from_the_environment(
    here: EmbeddedTlsRedis, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(files / "ca.crt"))
    assert ask(here.url) is None


def test_r3_2_a_certificate_of_another_host_is_refused(elsewhere: EmbeddedTlsRedis, files: Path) -> None:
    error = ask(f"{elsewhere.url}?ssl_ca_certs={files}/ca.crt")
    assert isinstance(error, ConfigurationError)
    assert "use a host name that the certificate has" in str(error)
    # Only who says so does without.
    assert ask(f"{elsewhere.url}?ssl_ca_certs={files}/ca.crt&ssl_check_hostname=false") is None
    assert ask(f"{elsewhere.url}?ssl_cert_reqs=none") is None


def test_r3_2_client_certificates_are_shown(strict: EmbeddedTlsRedis, files: Path) -> None:
    trusting = f"{strict.url}?ssl_ca_certs={files}/ca.crt"
    assert ask(f"{trusting}&ssl_certfile={files}/cleaner.crt&ssl_keyfile={files}/cleaner.key") is None
    assert ask(trusting) is not None


def test_a_plain_url_to_a_server_with_tls_fails_and_is_no_hang(here: EmbeddedTlsRedis) -> None:
    assert ask(here.url.replace("rediss://", "redis://")) is not None
