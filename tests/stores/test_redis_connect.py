"""Connecting to Redis: what is refused at once, what is tried again, and that nobody reads the password."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from redis import exceptions

from policy.spec import Retry
from policy.stores import RedisStore
from stores.model.errors import ConfigurationError, RedisUnavailableError, RunError
from stores.redis.connection import connect as module
from stores.redis.connection.connect import connect
from stores.redis.connection.errors import translate
from stores.redis.store import RedisStore as Store
from tests.support.servers.restartable import RestartableRedis
from tests.support.sync_world import KEYS, SECRET, InstantClock, Log

SETTINGS = RedisStore.model_validate({"urlFrom": SECRET, "keys": KEYS})
CANARY = "c4nary"


def open_store(url: str, attempts: int = 0, clock: InstantClock | None = None, log: Log | None = None) -> Store:
    retry = Retry(attempts=attempts, delay_seconds=30)
    return Store(connect(url, SETTINGS), SETTINGS, retry, clock or InstantClock(), log or Log())


def failure(url: str, act: Callable[[Store], object] = Store.server_time, attempts: int = 0) -> RunError:
    with pytest.raises(RunError) as caught:
        store = open_store(url, attempts)
        try:
            act(store)
        finally:
            store.close()
    assert CANARY not in str(caught.value)
    # What Redis said quotes commands: it must not come to light as the cause in a stack trace, either.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    return caught.value


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "start with redis://"),
        (f"http://:{CANARY}@host", "start with redis://"),
        (f"{CANARY}@host:6379", "start with redis://"),
        ("redis://", "has no host"),
        (f"redis://:{CANARY}@", "has no host"),
        (f"redis://:{CANARY}@host:port", "percent-encode"),
        (f"redis://:{CANARY}@host:70000", "percent-encode"),
        (f"redis://:{CANARY}#x@host", "percent-encode"),
        (f"redis://[{CANARY}", "percent-encode"),
        (f"redis://:{CANARY}@host/sessions", "database number"),
        (f"redis://:{CANARY}@host/-1", "database number"),
        (f"redis://:{CANARY}@host/0?db=x", "db must be a number"),
        (f"redis://:{CANARY}@host?decode_responses=true", "unknown option; known are db, password, username"),
        (f"redis://:{CANARY}@host?ssl_ca_certs=/ca", "unknown option; known are db, password, username"),
        (f"redis://host?{CANARY}=1", "unknown option"),
        (f"unix://{CANARY}/path", "path of a socket"),
        ("unix://", "path of a socket"),
        (f"rediss://:{CANARY}@host?ssl_cert_reqs=perhaps", "must be none, optional or required"),
        (f"rediss://:{CANARY}@host?ssl_ca_certs=/no/{CANARY}", "file in ssl_ca_certs does not exist"),
        (f"redis://:{CANARY}@host,other", "has several hosts"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_shown(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL") as caught:
        connect(url, SETTINGS)
    assert says in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "redis://user:p%40ss%2F@host:6380/15",
        "redis://host/",
        "redis://[::1]:6379/1",
        f"rediss://:secret@host:6379/0?ssl_ca_certs={__file__}&ssl_check_hostname=false",
        "unix:///run/redis.sock?db=3&password=secret",
        " redis://host:6379/0\n",
    ],
)
def test_urls_as_people_write_them_are_understood(url: str) -> None:
    connect(url, SETTINGS).close()


def test_a_unix_socket_works(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with RestartableRedis(options={"unixsocket": str(path)}):
        store = open_store(f"unix://{path}")
        assert store.server_time()
        store.close()
    missing = failure(f"unix://{tmp_path}/none.sock")
    assert isinstance(missing, RedisUnavailableError)
    assert "socket" in str(missing)


def test_r2_11_a_wrong_or_missing_password_is_a_configuration_error() -> None:
    with RestartableRedis() as server:
        with redis.Redis.from_url(server.url) as admin:
            admin.config_set("requirepass", CANARY)
        address = f"127.0.0.1:{server.port}/0"
        for url in (f"redis://:{CANARY}-wrong@{address}", f"redis://{address}", f"redis://nobody:{CANARY}@{address}"):
            error = failure(url, attempts=3)
            assert isinstance(error, ConfigurationError)
            assert "check user and password in REDIS_URL" in str(error)
        store = open_store(f"redis://:{CANARY}@{address}")
        assert store.server_time()
        store.close()


def test_a_password_where_none_is_set_is_a_configuration_error(redis_server: str) -> None:
    assert isinstance(failure(redis_server.replace("redis://", f"redis://:{CANARY}@")), ConfigurationError)


@pytest.mark.parametrize("permissions", ["+time ~*", "+@all -@scripting ~*", "+@all ~other:*"])
def test_a_missing_permission_is_a_configuration_error(redis_server: str, permissions: str) -> None:
    with redis.Redis.from_url(redis_server) as admin:
        admin.execute_command("ACL", "SETUSER", "limited", "reset", "on", f">{CANARY}", *permissions.split())
        try:
            url = redis_server.replace("redis://", f"redis://limited:{CANARY}@")
            error = failure(url, lambda store: store.key_states([CANARY]), attempts=3)
        finally:
            admin.execute_command("ACL", "DELUSER", "limited")
    assert isinstance(error, ConfigurationError)
    assert "permission" in str(error)


def test_a_database_that_does_not_exist_is_a_configuration_error(redis_server: str) -> None:
    error = failure(redis_server.removesuffix("/0") + "/9999")
    assert isinstance(error, ConfigurationError)
    assert "no database with the number" in str(error)


# --- unreachable ----------------------------------------------------------------------------------------------------


@contextmanager
def listener(answer: bytes | None) -> Iterator[tuple[str, list[int]]]:
    """A port whose connections get this answer to whatever they send, or are closed at once; and how many came."""
    came: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                came.append(1)
                if answer is None:
                    connection.close()
                    continue
                held.append(connection)
                if answer:
                    connection.recv(1000)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"redis://:{CANARY}@127.0.0.1:{server.getsockname()[1]}/0", came
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for connection in held:
                connection.close()


@pytest.mark.parametrize("answer", [None, b"-LOADING Redis is loading the dataset in memory\r\n"])
def test_r2_an_unreachable_redis_is_tried_as_often_as_the_policy_says_and_no_more(answer: bytes | None) -> None:
    clock, log = InstantClock(), Log()
    with listener(answer) as (url, came):
        store = open_store(url, attempts=3, clock=clock, log=log)
        with pytest.raises(RedisUnavailableError) as caught:
            store.server_time()
        store.close()
    assert clock.waits == [30, 30, 30]
    assert len(came) == 4
    assert CANARY not in str(caught.value) + repr(log.lines)
    assert log.events("warning") == ["retry"] * 3


def test_a_redis_that_does_not_answer_is_given_up_after_the_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SOCKET_TIMEOUT_SECONDS", 0.1)
    with listener(b"") as (url, came):
        error = failure(url)
    assert isinstance(error, RedisUnavailableError)
    assert "did not answer in time" in str(error)
    assert len(came) == 1


def test_a_refused_connection_says_so_and_names_no_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = failure(f"redis://:{CANARY}@127.0.0.1:{port}/0")
    assert isinstance(error, RedisUnavailableError)
    assert "refuses connections" in str(error)
    assert str(port) not in str(error)


def test_a_connection_that_the_server_closed_meanwhile_costs_no_attempt(redis_server: str) -> None:
    store = open_store(redis_server, attempts=0)
    store.server_time()
    with redis.Redis.from_url(redis_server) as admin:
        admin.client_kill_filter(_type="normal", skipme=True)
    assert store.server_time()
    store.close()


def test_r2_a_redis_that_comes_back_in_time_is_used() -> None:
    with RestartableRedis() as server:
        store = open_store(server.url, attempts=3, clock=InstantClock(server.restart))
        store.server_time()
        server.kill()
        assert store.server_time()
        store.close()


def _caused_by(error: redis.RedisError, cause: BaseException) -> redis.RedisError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (exceptions.MovedError(f"1 {CANARY}:6379"), ConfigurationError, "stores.redis.mode is not Cluster"),
        (exceptions.ResponseError(f"unknown command `UNLINK`, with args {CANARY}"), ConfigurationError, "UNLINK"),
        (exceptions.ReadOnlyError(CANARY), RedisUnavailableError, "ReadOnlyError"),
        (exceptions.OutOfMemoryError(CANARY), RedisUnavailableError, "OutOfMemoryError"),
        (exceptions.ResponseError(f"MISCONF {CANARY}"), RedisUnavailableError, "ResponseError"),
        (exceptions.ResponseError(f"anything {CANARY}"), RedisUnavailableError, "ResponseError"),
        (_caused_by(exceptions.ConnectionError(CANARY), socket.gaierror(CANARY)), RedisUnavailableError, "resolve"),
        (
            _caused_by(exceptions.ConnectionError(CANARY), ssl.SSLCertVerificationError(CANARY)),
            ConfigurationError,
            "ssl_ca_certs",
        ),
    ],
)
def test_errors_are_told_by_their_kind_and_never_by_the_servers_words(
    error: redis.RedisError, kind: type[RunError], says: str
) -> None:
    told = translate(error)
    assert type(told) is kind
    assert says in str(told)
    assert CANARY not in str(told)
