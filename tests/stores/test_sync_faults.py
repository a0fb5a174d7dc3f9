"""The synchronisation when Redis dies under it, and on PostgreSQL."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from redis.connection import AbstractConnection

from stores.model.errors import RedisUnavailableError
from tests.support.servers.restartable import RestartableRedis
from tests.support.sync_world import InstantClock, SyncWorld, changes

DELETE = {"onMissingRedisSession": "Delete"}


@pytest.fixture(scope="module")
def durable_redis() -> Iterator[RestartableRedis]:
    with RestartableRedis(options={"appendonly": "yes", "appendfsync": "always"}) as server:
        yield server


def fill(world: SyncWorld) -> None:
    for number in range(3):
        world.both(f"live{number}", ttl=None)
        world.access_log(f"live{number}")
        world.index("u1", f"live{number}")
        world.key(f"orphan{number}", kind="hash" if number else "json")
        world.access_log(f"orphan{number}")
        world.index("u1", f"orphan{number}", f"stale{number}")
        world.row(f"lost{number}", "u2")
        world.index("u2", f"lost{number}")


def assert_settled(world: SyncWorld) -> None:
    live = [f"live{number}" for number in range(3)]
    assert world.key_names() == {"user_sess:u1", *(f"sess:{i}" for i in live), *(f"access_log:{i}" for i in live)}
    assert world.members("u1") == {i.encode() for i in live}
    assert all(world.ttl(i) > 0 for i in live)
    assert world.rows() == set(live)


class Killer:
    """Kills Redis at the n-th thing sent to it: before it is sent, or after, so that only the answer is lost."""

    def __init__(self, server: RestartableRedis, at: int, *, before: bool) -> None:
        self.fired = False
        self._server, self._left, self._before = server, at, before
        self._send: Any = AbstractConnection.send_packed_command

    def install(self, patch: pytest.MonkeyPatch) -> None:
        def send(connection: AbstractConnection, *arguments: Any, **options: Any) -> None:
            self._count(connection, *arguments, **options)

        patch.setattr(AbstractConnection, "send_packed_command", send)

    def _count(self, connection: AbstractConnection, *arguments: Any, **options: Any) -> None:
        self._left -= 1
        if self._left == 0:
            self.fired = True
            if self._before:
                self._server.kill()
        self._send(connection, *arguments, **options)
        if self._left == 0 and not self._before:
            # The next read finds the answer, or the end: both are right.
            self._server.kill()


@pytest.mark.representative(at=[11])
@pytest.mark.parametrize("before", [True, False], ids=["unsent", "unanswered"])
@pytest.mark.parametrize("at", range(2, 26, 3))
def test_r3_5_redis_killed_anywhere_and_the_next_run_finishes(
    sqlite_url: str, durable_redis: RestartableRedis, monkeypatch: pytest.MonkeyPatch, at: int, before: bool
) -> None:
    world = SyncWorld(sqlite_url, durable_redis.url)
    world.clear()
    fill(world)
    killer = Killer(durable_redis, at, before=before)
    with monkeypatch.context() as patch:
        killer.install(patch)
        with contextlib.suppress(RedisUnavailableError):
            world.run(sync=DELETE)
    assert killer.fired
    durable_redis.restart()
    # Whatever was done, no session that both stores know was touched.
    assert {"sess:live0", "sess:live1", "sess:live2"} <= world.key_names()
    world.run(sync=DELETE)
    assert_settled(world)
    assert changes(world.run(sync=DELETE)) == (0, 0, 0, 0)
    world.close()


@pytest.mark.representative(at=[8])
@pytest.mark.parametrize("at", range(2, 26, 6))
def test_r2_redis_back_within_the_retries_and_the_run_goes_on(
    sqlite_url: str, durable_redis: RestartableRedis, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    world = SyncWorld(sqlite_url, durable_redis.url)
    world.clear()
    fill(world)
    killer = Killer(durable_redis, at, before=True)

    one_at_a_time = threading.Lock()  # the run waits for Redis in several threads

    def recover() -> None:
        with one_at_a_time:
            if not durable_redis.running:
                durable_redis.restart()

    with monkeypatch.context() as patch:
        killer.install(patch)
        world.run(clock=InstantClock(recover), sync=DELETE, retries={"redis": {"attempts": 3, "delaySeconds": 30}})
    assert killer.fired
    assert "retry" in world.log.events("warning")
    world.run(sync=DELETE)  # a restarted Redis scans in another order, and may not have shown every key
    assert_settled(world)
    world.close()


def test_r3_5_on_postgresql_as_on_sqlite(postgres_url: str, redis_url: str) -> None:
    world = SyncWorld(postgres_url, redis_url)
    fill(world)
    tally = world.run(sync=DELETE)
    assert_settled(world)
    assert (tally.redis.orphaned, tally.redis.missing, tally.deleted, tally.redis.ttl_added) == (3, 3, 3, 3)
    assert changes(world.run(sync=DELETE)) == (0, 0, 0, 0)
    world.close()
