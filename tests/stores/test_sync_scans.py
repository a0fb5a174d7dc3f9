"""How the synchronisation finds what differs: what it asks for, and what an application may do meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pytest

from stores.redis.connection.server import RedisServer
from stores.redis.content.java_serialization import JAVA_STRING
from stores.sql.store import SessionDatabase
from tests.support.sync_world import SyncWorld, changes

DELETE = {"onMissingRedisSession": "Delete"}


class Asked:
    """Notes for how many keys the database was asked, and how often Redis was walked through."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.keys: set[str] = set()
        self.walks = 0
        existing, scan = SessionDatabase.existing, RedisServer.scan

        def note(database: SessionDatabase, keys: Collection[str]) -> set[str]:
            self.keys.update(keys)
            return existing(database, keys)

        def count(server: RedisServer, pattern: bytes, size: int) -> Iterator[list[bytes]]:
            self.walks += 1
            return scan(server, pattern, size)

        patch.setattr(SessionDatabase, "existing", note)
        patch.setattr(RedisServer, "scan", count)


def fill(world: SyncWorld, sessions: int) -> None:
    for number in range(sessions):
        world.both(f"live{number}")
        world.index(f"u{number % 7}", f"live{number}")
        world.access_log(f"live{number}")


def test_r2_8_where_the_stores_agree_no_key_is_looked_up_and_redis_is_walked_once(
    world: SyncWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world, 100)
    asked = Asked(monkeypatch)
    tally = world.run()
    assert (tally.redis.sessions, tally.redis.orphaned, tally.redis.missing) == (100, 0, 0)
    assert (asked.keys, asked.walks) == (set(), 1)


def test_r2_8_where_they_hardly_differ_little_is_looked_up(world: SyncWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(world, 300)
    world.key("orphan")
    world.client.delete("sess:live0")
    asked = Asked(monkeypatch)
    tally = world.run()
    assert (tally.redis.sessions, tally.redis.orphaned, tally.redis.missing) == (300, 1, 1)
    assert {"orphan", "live0"} <= asked.keys
    assert len(asked.keys) < 30


def test_r3_5_a_key_of_another_type_is_not_counted_as_a_session(world: SyncWorld) -> None:
    world.both("live")
    world.key("odd", kind="list")
    assert world.run().redis.sessions == 1


def test_r3_5_nothing_that_begins_or_ends_during_the_walk_is_taken_for_a_mistake(
    world: SyncWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two pages sessions begin, end, are renamed, and are used."""
    fill(world, 60)
    scan, pages = RedisServer.scan, SessionDatabase.live_id_pages
    begun: list[str] = []

    def live_on() -> None:
        step = len(begun)
        begun.append(f"new{step}")
        world.both(f"new{step}", began=0, used=0)
        world.index("u1", f"new{step}")
        world.drop_row(f"live{step}")
        world.client.delete(f"sess:live{step}")
        world.client.srem(f"user_sess:u{step % 7}", f"live{step}")
        world.client.delete(f"access_log:live{step}")
        world.client.delete(f"sess:live{40 + step}")
        world.key(f"live{40 + step}", kind="hash")

    def small(server: RedisServer, pattern: bytes, count: int) -> Iterator[list[bytes]]:
        return scan(server, pattern, 10)

    def busy(database: SessionDatabase) -> Iterator[Sequence[Any]]:
        live_on()
        for page in pages(database):
            live_on()
            yield page[:30]
            live_on()
            yield page[30:]
            live_on()

    monkeypatch.setattr(RedisServer, "scan", small)
    monkeypatch.setattr(SessionDatabase, "live_id_pages", busy)
    tally = world.run(sync=DELETE)
    assert begun
    expected = {f"live{number}" for number in range(len(begun), 60)} | set(begun)
    assert world.rows() == expected
    assert {key for key in world.key_names() if key.startswith("sess:")} == {f"sess:{i}" for i in expected}
    assert (tally.redis.orphaned, tally.redis.missing, tally.redis.index_entries_removed) == (0, 0, 0)
    monkeypatch.undo()
    assert changes(world.run(sync=DELETE)) == (0, 0, 0, 0)


def test_r3_5_an_orphan_goes_from_the_index_of_another_user_too(world: SyncWorld) -> None:
    world.both("live")
    world.key("orphan", user=None)
    world.index("u2", "orphan", "live")
    tally = world.run()
    assert (tally.redis.deleted, tally.redis.index_entries_removed) == (1, 1)
    assert world.members("u2") == {b"live"}


def test_r3_5_an_orphan_goes_from_a_second_index_too_and_others_are_not_looked_up_twice(
    world: SyncWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[bytes] = []
    existing = RedisServer.count_existing

    def note(server: RedisServer, groups: Sequence[Sequence[bytes]]) -> list[int]:
        looked_up.extend(key for group in groups for key in group)
        return existing(server, groups)

    monkeypatch.setattr(RedisServer, "count_existing", note)
    fill(world, 200)
    world.run()
    where_all_agree = len(looked_up)
    looked_up.clear()
    world.key("orphan", user="u1")
    world.index("u1", "orphan")
    world.index("u2", "orphan", _as_java_writes_it("orphan"))
    tally = world.run()
    assert (tally.redis.deleted, tally.redis.index_entries_removed) == (1, 3)
    assert b"orphan" not in world.members("u1") | world.members("u2")
    # Besides the orphan, only who shares its place among the marks.
    assert where_all_agree >= 200 > len(looked_up) - where_all_agree


def test_r3_5_indexes_of_the_wrong_type_are_counted_once_though_looked_at_twice(world: SyncWorld) -> None:
    world.both("live")
    world.key("orphan")
    world.client.set("user_sess:odd", "x")
    world.run()
    assert [fields["keys"] for _, event, fields in world.log.lines if event == "keys skipped"] == [1]


def _as_java_writes_it(text: str) -> bytes:
    return JAVA_STRING + len(text).to_bytes(2, "big") + text.encode()
