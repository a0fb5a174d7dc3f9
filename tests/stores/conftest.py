"""Fixtures of the store tests: the default tables in each database, with or without Redis."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
import sqlalchemy as sa

from job.demo.servers import EmbeddedServerUnavailable
from tests.support.kube import eventually
from tests.support.servers.restartable import RestartablePostgres, RestartableRedis
from tests.support.session_stores import SessionStores
from tests.support.sync_world import SyncWorld


@pytest.fixture(params=["postgresql", "sqlite", "mariadb"])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database: every test that asks for it runs once with each kind."""
    if request.param == "sqlite":
        url: str = request.getfixturevalue("sqlite_url")
        return url
    try:
        url = request.getfixturevalue("mariadb_url" if request.param == "mariadb" else "postgres_url")
    except EmbeddedServerUnavailable as missing:
        pytest.skip(str(missing))
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[SessionStores]:
    """The default tables, without Redis; in each kind of database."""
    made = SessionStores(database_url)
    yield made
    made.close()


@pytest.fixture
def stores(database_url: str, redis_url: str) -> Iterator[SessionStores]:
    """The default tables and an empty Redis; in each kind of database."""
    made = SessionStores(database_url, redis_url)
    yield made
    made.close()


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[SessionStores]:
    """The default tables in PostgreSQL."""
    made = SessionStores(postgres_url)
    yield made
    made.close()


@pytest.fixture
def postgres_and_redis(postgres_url: str, redis_url: str) -> Iterator[SessionStores]:
    """The default tables in PostgreSQL and an empty Redis."""
    made = SessionStores(postgres_url, redis_url)
    yield made
    made.close()


@pytest.fixture
def world(sqlite_url: str, redis_url: str) -> Iterator[SyncWorld]:
    """A session table in SQLite beside a Redis, both empty; some tests have a world of their own."""
    made = SyncWorld(sqlite_url, redis_url)
    yield made
    made.close()


@pytest.fixture(scope="session")
def _own_postgres() -> Iterator[RestartablePostgres]:
    # A server that is killed must still have what it has committed.
    server = RestartablePostgres(durable=False)
    try:
        yield server.start()
    except EmbeddedServerUnavailable as missing:
        pytest.skip(str(missing))
    finally:
        server.stop()


@pytest.fixture
def own_postgres(_own_postgres: RestartablePostgres) -> RestartablePostgres:
    """A PostgreSQL server that tests may kill; it is up when a test begins."""
    return _own_postgres if _own_postgres.running else _own_postgres.restart()


@pytest.fixture
def own_postgres_url(own_postgres: RestartablePostgres) -> Iterator[str]:
    """URL of an empty database on that server."""
    name = f"test_{secrets.token_hex(6)}"
    with _admin(own_postgres) as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0")
    yield own_postgres.url_of(name)


@pytest.fixture(scope="session")
def _own_redis() -> Iterator[RestartableRedis]:
    # Everything is written down at once, so that a killed server loses nothing.
    server = RestartableRedis(options={"appendonly": "yes", "appendfsync": "always"})
    try:
        yield server.start()
    except EmbeddedServerUnavailable as missing:
        pytest.skip(str(missing))
    finally:
        server.stop()


@pytest.fixture
def own_redis(_own_redis: RestartableRedis) -> RestartableRedis:
    """An empty Redis that tests may kill; it is up when a test begins."""
    server = _own_redis if _own_redis.running else _own_redis.restart()
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server


@contextmanager
def _admin(server: RestartablePostgres) -> Iterator[sa.Connection]:
    engine = sa.create_engine(server.url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@pytest.fixture
def scram_url(own_postgres: RestartablePostgres, own_postgres_url: str) -> Iterator[sa.URL]:
    """URL of the empty database for a user whose password the server asks for, and checks."""
    rules = own_postgres.data_dir / "pg_hba.conf"
    trusting = rules.read_text()
    # Of this test alone: a role that owns something in a database cannot be dropped before that is.
    role = f"shop_{secrets.token_hex(4)}"
    try:
        with _admin(own_postgres) as connection:
            connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'right' CREATEDB")
            rules.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n" + trusting)
            connection.exec_driver_sql("SELECT pg_reload_conf()")
        # The server reads its rules in a moment; until then it lets everybody in.
        url = sa.make_url(own_postgres_url).set(username=role, password="wrong")
        eventually(lambda: not _lets_in(url), what="the server asks for the password")
        yield url.set(password="right")
    finally:
        rules.write_text(trusting)
        with _admin(own_postgres) as connection:
            connection.exec_driver_sql("SELECT pg_reload_conf()")


def _lets_in(url: sa.URL) -> bool:
    engine = sa.create_engine(url)
    try:
        engine.connect().close()
    except sa.exc.OperationalError:
        return False
    finally:
        engine.dispose()
    return True
