"""The embedded servers: what the demo and all store tests stand on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from job.demo.servers import EmbeddedPostgres, EmbeddedRedis, EmbeddedServerError, EmbeddedServerUnavailable
from job.demo.servers import postgres as postgres_module
from job.demo.servers.process import EmbeddedServer
from tests.support.kube import eventually
from tests.support.servers.restartable import RestartablePostgres, RestartableRedis


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def test_postgres_keeps_committed_rows_over_kill_and_restart() -> None:
    with RestartablePostgres() as server:
        url = server.url
        with connect(url) as connection:
            connection.execute("CREATE TABLE kept (id int)")
            connection.execute("INSERT INTO kept VALUES (1)")
        server.kill()
        assert not server.running
        with pytest.raises(psycopg.OperationalError):
            connect(url)
        server.restart()
        assert server.url == url
        with connect(url) as connection:
            assert connection.execute("SELECT id FROM kept").fetchall() == [(1,)]


def test_postgres_data_directory_outlives_stop() -> None:
    with tempfile.TemporaryDirectory() as parent:
        # As root the server runs as another account: it must be able to enter.
        Path(parent).chmod(0o755)
        data = Path(parent) / "data"
        with EmbeddedPostgres(data, durable=False) as server, connect(server.url) as connection:
            connection.execute("CREATE TABLE kept (id int)")
        with EmbeddedPostgres(data, durable=False) as server, connect(server.url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs the server itself")
def test_as_root_a_data_directory_out_of_reach_is_refused_in_words(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(EmbeddedServerUnavailable, match="cannot reach"):
        EmbeddedPostgres(tmp_path / "data").start()


def test_two_servers_do_not_meet() -> None:
    with EmbeddedRedis() as one, EmbeddedRedis() as other:
        with redis.Redis.from_url(one.url) as client:
            client.set("key", "value")
        with redis.Redis.from_url(other.url) as client:
            assert client.dbsize() == 0


def test_redis_options_reach_the_server_and_appended_data_survives_a_kill() -> None:
    with RestartableRedis(options={"appendonly": "yes", "appendfsync": "always"}) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("key", "value")
        server.kill()
        server.restart()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("key") == b"value"


def test_temporary_data_goes_with_stop() -> None:
    server = EmbeddedRedis().start()
    data = server.data_dir
    assert data.is_dir()
    server.stop()
    assert not data.exists()
    server.stop()


@pytest.mark.representative(1)
@pytest.mark.parametrize("server_class", ["EmbeddedRedis", "EmbeddedPostgres"])
def test_server_dies_with_its_owner_even_when_that_is_killed(server_class: str) -> None:
    program = (
        f"from job.demo.servers import {server_class} as Server\n"
        "server = Server().start()\n"
        "print(server._process.pid, server.data_dir, flush=True)\n"
        "input()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=os.getcwd()
    )
    assert owner.stdout is not None
    told = owner.stdout.readline().decode().split()
    pid, data = int(told[0]), Path(told[1])
    server = psutil.Process(pid)
    owner.kill()
    owner.communicate()
    with contextlib.suppress(psutil.NoSuchProcess):
        server.wait(timeout=120)
    assert not psutil.pid_exists(pid)
    eventually(lambda: not data.exists(), timeout_seconds=120, what="the temporary data removed")


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(EmbeddedServerError, match=r"(?i)no_such_option"):
        EmbeddedRedis(options={"no_such_option": "1"}).start()
    with pytest.raises(EmbeddedServerError, match="no_such_setting"):
        EmbeddedPostgres(settings={"no_such_setting": "1"}).start()


@pytest.mark.parametrize(
    ("server", "variable"), [(EmbeddedRedis, "REDIS_SERVER_BIN"), (EmbeddedPostgres, "POSTGRES_BIN_DIR")]
)
def test_a_wrong_program_path_names_the_variable(
    server: type[EmbeddedServer], variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "missing"))
    postgres_module.runnable_bin_dir.cache_clear()
    try:
        with pytest.raises(EmbeddedServerUnavailable, match=variable):
            server().start()  # type: ignore[call-arg]
    finally:
        postgres_module.runnable_bin_dir.cache_clear()


@pytest.mark.skipif(os.geteuid() != 0, reason="as an ordinary user nothing has to be copied")
def test_as_root_a_wheel_out_of_reach_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTGRES_BIN_DIR", raising=False)
    original = postgres_module.bin_dir()
    monkeypatch.setattr(postgres_module, "reachable_by", lambda path, account: path.parent != original)
    postgres_module.runnable_bin_dir.cache_clear()
    try:
        copy = postgres_module.runnable_bin_dir()
        assert copy != original
        # Keep the real check for the data directory.
        monkeypatch.undo()
        with EmbeddedPostgres() as server, connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        postgres_module.runnable_bin_dir.cache_clear()


def test_fixtures_give_empty_stores(postgres_url: str, redis_url: str, sqlite_url: str) -> None:
    with connect(postgres_url) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert tables == (0,)
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()
