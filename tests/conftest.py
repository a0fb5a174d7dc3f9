"""Fixtures for all tests: real servers, started once per worker, with something fresh in them per test.

Which test goes where:

- ``unit``: one module, no server; thousandths of a second.
- ``stores``: runs and commands against real databases and Redis; each test has a database of its own.
- ``controlplane``: the controller against a real API server, which all workers share; each test has a namespace of its
  own. Who stops or freezes the API server asks for ``own_control_plane`` instead.
- ``e2e``: images and chart on a whole cluster (`make e2e`).
- Marked ``exhaustive``, in any of them: random, every case of a matrix, or many seconds long. `make test` leaves these
  out, so another test must show that the thing works at all; `make test-all`, and CI, run everything. Of a parametrised
  test ``representative(when=["before"])``, or ``representative(2)`` for the first two, says which cases stay.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
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
from tests.support.shared import SharedControlPlane

TESTS = Path(__file__).parent

_MOST_WORKERS = 4
_SHARED = pytest.StashKey[ExitStack]()

# How fast examples are made says something about the machine, nothing about the code. In CI they are the same each
# time, so that a change is judged by what it changes. New ones are tried wherever people work.
settings.register_profile(
    "any machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
)
# `make test`: pytest --hypothesis-profile=few
settings.register_profile("few", settings.get_profile("any machine"), max_examples=20)
settings.load_profile("any machine")


def pytest_xdist_auto_num_workers() -> int:
    """How many workers `-n auto` means: tests wait for servers half of the time, so two for each core."""
    return min(2 * (os.cpu_count() or 1), _MOST_WORKERS)


def pytest_configure(config: pytest.Config) -> None:
    """What all workers share lives as long as any of them uses it, which is longer than a fixture."""
    config.stash[_SHARED] = cleanup = ExitStack()
    config.add_cleanup(cleanup.close)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the control plane of each test: all workers' one, unless the test asks for its own."""
    if "control_plane" in metafunc.fixturenames:
        which = "own" if "own_control_plane" in metafunc.fixturenames else "shared"
        unnamed = pytest.param(which, id=pytest.HIDDEN_PARAM)
        metafunc.parametrize("control_plane", [unnamed], indirect=True, scope="session")


# First: later the groups would not be seen by pytest-xdist, nor the marks by `-m`.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their directory, and say which ones stay together in one worker."""
    for item in items:
        _mark_exhaustive(item)
        tier = item.path.relative_to(TESTS).parts[0]
        if tier in {"stores", "controlplane", "e2e"}:
            item.add_marker(tier)
        needed = getattr(item, "fixturenames", ())
        if "own_control_plane" in needed:
            item.add_marker(pytest.mark.xdist_group("own-control-plane"))
        elif "control_plane" in needed:
            # Those of a module share a controller, or more.
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def _mark_exhaustive(item: pytest.Item) -> None:
    """Of a test with ``representative(parameter=values)``, or ``representative(number)``, the other cases."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return
    for marker in item.iter_markers("representative"):
        others = any(callspec.params.get(name, values[0]) not in values for name, values in marker.kwargs.items())
        for number in marker.args:
            named = [name for parametrize in item.iter_markers("parametrize") for name in _names(parametrize.args[0])]
            others = others or any(callspec.indices[name] >= number for name in named)
        if others:
            item.add_marker("exhaustive")


def _names(arguments: str | Sequence[str]) -> list[str]:
    return [name.strip() for name in arguments.split(",")] if isinstance(arguments, str) else list(arguments)


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
def control_plane(request: pytest.FixtureRequest, run_directory: Path) -> Iterator[ControlPlane]:
    """A real API server with etcd and the controller manager; the garbage collector and CronJobs work.

    All workers use the same one, each test in a namespace of its own.
    """
    if request.param == "own":
        plane = ControlPlane.start()
        try:
            yield plane
        finally:
            plane.stop()
        return
    shared = SharedControlPlane(run_directory)
    request.config.stash[_SHARED].callback(shared.stop)
    with shared.use() as plane:
        yield plane


@pytest.fixture
def own_control_plane(control_plane: ControlPlane) -> ControlPlane:
    """A control plane that no other worker uses: the test may stop, kill or freeze parts of it."""
    return control_plane


@pytest.fixture(scope="session")
def run_directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of this test run, the same in all workers."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if hasattr(request.config, "workerinput") else base
