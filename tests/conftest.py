"""Fixtures for all tests: real servers, started once per worker, with something fresh in them per test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from job.demo.servers import EmbeddedPostgres, EmbeddedRedis, EmbeddedServerUnavailable
from job.demo.servers.postgres import bin_dir
from job.demo.servers.redis import server_program
from tests.support.controlplane import ControlPlane, ControlPlaneUnavailable, find_programs
from tests.support.databases import fresh_mariadb_database, fresh_postgres_database
from tests.support.servers.mariadb import EmbeddedMariaDB
from tests.support.servers.mariadb import server_program as mariadb_program
from tests.support.servers.redis_cluster import EmbeddedRedisCluster
from tests.support.servers.redis_sentinel import EmbeddedRedisSentinels
from tests.support.servers.redis_tls import tls_server_program

TESTS = Path(__file__).parent

# How fast examples are made says something about the machine, nothing about the code. In CI they are the same each
# time, so that a change is judged by what it changes. New ones are tried wherever people work.
settings.register_profile(
    "any machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
)
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their directory; keep those that share the control plane in one worker."""
    for item in items:
        tier = item.path.relative_to(TESTS).parts[0]
        if tier in {"stores", "controlplane", "e2e"}:
            item.add_marker(tier)
        if "control_plane" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("controlplane"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine has no server for; from one place, so that the summary has one line for each cause."""
    needed = getattr(item, "fixturenames", ())
    try:
        if "control_plane" in needed:
            find_programs()
        if "postgres_server" in needed and "TEST_DATABASE_URL" not in os.environ:
            bin_dir()
        if "mariadb_server" in needed and "TEST_MARIADB_URL" not in os.environ:
            mariadb_program()
        if "redis_server" in needed and "TEST_REDIS_URL" not in os.environ:
            server_program()
        if {"redis_cluster", "redis_sentinels"} & set(needed):
            server_program()
        if "redis_tls_program" in needed:
            tls_server_program()
    except (ControlPlaneUnavailable, EmbeddedServerUnavailable) as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a PostgreSQL server we may create databases in."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
        return
    with EmbeddedPostgres(durable=False) as server:
        yield server.url


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of an empty database that is this test's alone."""
    with fresh_postgres_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[str]:
    """URL of a MariaDB or MySQL server we may create databases in."""
    if given := os.environ.get("TEST_MARIADB_URL"):
        yield given
        return
    with EmbeddedMariaDB() as server:
        yield server.url


@pytest.fixture
def mariadb_url(mariadb_server: str) -> Iterator[str]:
    """URL of an empty database that is this test's alone."""
    with fresh_mariadb_database(mariadb_server) as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """URL of a Redis server whose database the tests may empty."""
    if given := os.environ.get("TEST_REDIS_URL"):
        yield given
        return
    with EmbeddedRedis() as server:
        yield server.url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """URL of an empty Redis database."""
    import redis

    with redis.Redis.from_url(redis_server) as client:
        client.flushdb()
    return redis_server


@pytest.fixture(scope="session")
def _redis_cluster() -> Iterator[EmbeddedRedisCluster]:
    with EmbeddedRedisCluster(masters=3, replicas=1) as cluster:
        yield cluster


@pytest.fixture
def redis_cluster(_redis_cluster: EmbeddedRedisCluster) -> EmbeddedRedisCluster:
    """An empty cluster of three masters with a replica each, whole when a test begins; a test may kill any."""
    _redis_cluster.heal()
    with _redis_cluster.client() as client:
        client.flushall(target_nodes=client.PRIMARIES)
    return _redis_cluster


@pytest.fixture(scope="session")
def _redis_sentinels() -> Iterator[EmbeddedRedisSentinels]:
    with EmbeddedRedisSentinels(password="server-secret", sentinel_password="sentinel-secret") as trio:
        yield trio


@pytest.fixture
def redis_sentinels(_redis_sentinels: EmbeddedRedisSentinels) -> EmbeddedRedisSentinels:
    """An empty master with a replica and three sentinels, whole when a test begins; a test may kill the master."""
    _redis_sentinels.heal()
    with _redis_sentinels.client() as client:
        client.flushall()
    return _redis_sentinels


@pytest.fixture(scope="session")
def redis_tls_program() -> Path:
    """A Redis or Valkey server program that was built with TLS."""
    return tls_server_program()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """URL of a SQLite database file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'sessions.sqlite3'}"


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A real API server with etcd and the controller manager; the garbage collector and CronJobs work."""
    plane = ControlPlane.start()
    try:
        yield plane
    finally:
        plane.stop()
