"""Redis and the database are made to agree (R2.8, R3.5), on real stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from job.demo.servers import EmbeddedRedis
from stores.model.errors import SafetyLimitError, StopRequestedError
from stores.model.tally import Tally
from stores.redis.connection.server import RedisServer
from tests.support.examples import at_most
from tests.support.sync_world import GRACE, InstantClock, SyncWorld, changes

ALWAYS = {"alwaysAllowedDeletions": 1_000_000}
DELETE = {"onMissingRedisSession": "Delete"}


# --- orphaned keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["json", "hash", "empty"])
def test_r3_5_a_key_without_a_row_goes_with_its_access_log_and_index_entry(world: SyncWorld, kind: str) -> None:
    world.both("live", kind=kind)
    world.key("orphan", kind=kind)
    world.access_log("orphan")
    world.access_log("live")
    world.index("u1", "orphan", "live")
    tally = world.run()
    assert world.key_names() == {"sess:live", "access_log:live", "user_sess:u1"}
    assert world.members("u1") == {b"live"}
    assert (tally.redis.sessions, tally.redis.orphaned, tally.redis.deleted) == (2, 1, 1)
    assert tally.redis.index_entries_removed == 1
    assert tally.redis.missing == 0
    assert changes(world.run()) == (0, 0, 0, 0)


def test_r3_5_an_expired_row_still_keeps_its_key(world: SyncWorld) -> None:
    """That row is the expiry step's business; if that step left it, there was a reason."""
    world.row("late", began=90_000, used=80_000)
    world.key("late")
    world.run()
    assert "sess:late" in world.key_names()


def test_r3_5_a_login_half_way_survives(world: SyncWorld) -> None:
    world.key("new", began=None, used=None)
    world.index("u1", "new")
    clock = InstantClock(lambda: world.row("new") if "new" not in world.rows() else None)
    tally = world.run(clock=clock)
    assert "sess:new" in world.key_names()
    assert world.members("u1") == {b"new"}
    assert (tally.redis.orphaned, tally.redis.deleted) == (0, 0)
    assert clock.waits == [GRACE]


def test_r3_5_a_key_used_during_the_wait_is_left_to_the_next_run(world: SyncWorld) -> None:
    world.key("busy")
    world.run(clock=InstantClock(lambda: world.key("busy", used=0)))
    assert "sess:busy" in world.key_names()
    world.key("busy", used=GRACE + 1)
    assert world.run().redis.deleted == 1


@pytest.mark.parametrize(("began", "used"), [(1, None), (None, 1), (3600, 0), (3600, -60)])
def test_r3_5_a_key_younger_than_the_grace_is_left_to_the_next_run(
    world: SyncWorld, began: float | None, used: float | None
) -> None:
    world.key("young", began=began, used=used)
    assert world.run().redis.orphaned == 0
    assert "sess:young" in world.key_names()


def test_a_time_in_the_far_future_protects_no_orphan(world: SyncWorld) -> None:
    world.key("odd", began=-10 * 365 * 86400, used=None)
    assert world.run().redis.deleted == 1


def test_r3_5_a_key_that_went_during_the_wait_is_not_counted(world: SyncWorld) -> None:
    world.key("logout")
    tally = world.run(clock=InstantClock(lambda: world.client.delete("sess:logout")))
    assert (tally.redis.orphaned, tally.redis.deleted) == (0, 0)


def test_r3_5_a_key_long_untouched_goes_without_a_wait(world: SyncWorld) -> None:
    world.key("old", user=None)
    world.idle_for("old", 3600)
    clock = InstantClock()
    assert world.run(clock=clock).redis.deleted == 1
    assert clock.waits == []


def test_r3_5_a_small_number_shares_its_idle_time_with_others_and_is_waited_for(world: SyncWorld) -> None:
    world.client.set("sess:number", 5)
    world.idle_for("number", 3600)
    clock = InstantClock()
    world.run(clock=clock)
    assert clock.waits == [GRACE]


def test_r3_5_with_an_lfu_server_the_second_look_decides(sqlite_url: str) -> None:
    with EmbeddedRedis(options={"maxmemory-policy": "allkeys-lfu"}) as server:
        world = SyncWorld(sqlite_url, server.url)
        world.key("orphan", user=None)
        world.key("login", began=None, used=None)
        clock = InstantClock(lambda: world.row("login"))
        assert world.run(clock=clock).redis.deleted == 1
        assert world.key_names() == {"sess:login"}
        assert clock.waits == [GRACE]
        world.close()


def test_r3_5_without_a_grace_there_is_no_wait(world: SyncWorld) -> None:
    world.key("orphan")
    clock = InstantClock()
    assert world.run(clock=clock, sync={"graceSeconds": 0}).redis.deleted == 1
    assert clock.waits == []


def test_r3_5_an_access_log_whose_session_is_gone_everywhere_goes(world: SyncWorld) -> None:
    world.both("live")
    world.row("only-row")
    for session_id in ("live", "only-row", "ended"):
        world.access_log(session_id)
    world.run(dry_run=True)
    assert "access_log:ended" in world.key_names()
    world.run()
    assert {key for key in world.key_names() if key.startswith("access_log:")} == {
        "access_log:live",
        "access_log:only-row",
    }


def test_r3_5_the_access_log_of_a_login_that_is_not_finished_stays(world: SyncWorld) -> None:
    world.access_log("new")
    world.run(clock=InstantClock(lambda: world.row("new", began=0, used=0)))
    assert "access_log:new" in world.key_names()


def test_r3_5_what_is_named_otherwise_or_is_no_session_is_untouched(world: SyncWorld) -> None:
    world.both("live")
    world.key("list", kind="list")
    world.client.sadd("sess:set", "x")
    world.client.set(b"sess:\xff\xfe", "not UTF-8")
    world.client.set("sess:", "no id")
    world.client.set("other:1", "x")
    world.client.set("session:1", "x")
    before = world.snapshot()
    tally = world.run()
    assert world.snapshot() == before
    assert tally.redis.sessions == 1


@pytest.mark.parametrize("session_id", ["a:b:c", "*", "[a-z]", "é", "日本", "a\nb", "a b", "'; --", "\\", "{id}"])
def test_r3_5_any_id_is_understood(world: SyncWorld, session_id: str) -> None:
    world.both(session_id)
    world.index("u1", session_id)
    world.key(session_id + "x")
    world.index("u1", session_id + "x")
    tally = world.run()
    assert world.key_names() == {f"sess:{session_id}", "user_sess:u1"}
    assert world.members("u1") == {session_id.encode()}
    assert (tally.redis.deleted, tally.redis.missing) == (1, 0)


def test_r3_5_glob_characters_in_a_template_mean_themselves(world: SyncWorld) -> None:
    world.client.set("s*[x]:1", "{}")
    world.client.set("sabx:1", "{}")
    assert world.run(keys={"session": "s*[x]:{id}"}).redis.deleted == 1
    assert world.key_names() == {"sabx:1"}


def test_r3_5_a_great_many_are_handled_in_batches(world: SyncWorld) -> None:
    pipeline = world.client.pipeline(transaction=False)
    for number in range(5_000):
        pipeline.set(f"sess:{number:05}", "{}", ex=1800)
        pipeline.rpush(f"access_log:{number:05}", "x")
        pipeline.sadd(f"user_sess:{number % 700}", f"{number:05}")
    pipeline.sadd("user_sess:big", *(f"none{number}" for number in range(5_000)))
    pipeline.execute()
    with world.engine.begin() as connection:
        connection.exec_driver_sql(
            "WITH RECURSIVE n(value) AS (SELECT 0 UNION ALL SELECT value + 1 FROM n WHERE value < 2999) "
            "INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at) "
            "SELECT printf('%05d', value), 'u', datetime('now', '-1 hour'), datetime('now', '-1 minute') FROM n"
        )
    tally = world.run()
    assert tally.redis.sessions == 5_000
    assert (tally.redis.orphaned, tally.redis.deleted) == (2_000, 2_000)
    assert tally.redis.index_entries_removed == 2_000 + 5_000
    assert tally.redis.missing == 0
    left = world.key_names()
    assert {key for key in left if key.startswith("sess:")} == {f"sess:{n:05}" for n in range(3_000)}
    assert sum(key.startswith("access_log:") for key in left) == 3_000
    assert changes(world.run()) == (0, 0, 0, 0)


def test_r3_5_what_redis_shows_twice_is_counted_and_deleted_once(
    world: SyncWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SCAN may show a key again on a later page."""
    for number in range(1_500):
        world.client.set(f"sess:live{number}", "{}", ex=1800)
    with world.engine.begin() as connection:
        connection.exec_driver_sql(
            "WITH RECURSIVE n(value) AS (SELECT 0 UNION ALL SELECT value + 1 FROM n WHERE value < 1499) "
            "INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at) "
            "SELECT 'live' || value, 'u', datetime('now', '-1 hour'), datetime('now', '-1 minute') FROM n"
        )
    for number in range(3):
        world.key(f"orphan{number}")
        world.access_log(f"stale{number}")
    world.index("u1", "stale0", "stale1", "live1")
    scan = RedisServer.scan

    def twice(server: RedisServer, pattern: bytes, count: int) -> Iterator[list[bytes]]:
        for page in scan(server, pattern, count):
            yield page + page
            yield page

    monkeypatch.setattr(RedisServer, "scan", twice)
    tally = world.run()
    assert (tally.redis.orphaned, tally.redis.deleted, tally.redis.index_entries_removed) == (3, 3, 2)
    assert tally.redis.missing == 0
    assert {key for key in world.key_names() if not key.startswith("sess:live")} == {"user_sess:u1"}
    assert world.members("u1") == {b"live1"}


def test_r3_5_looking_at_everything_is_no_use_of_it(world: SyncWorld) -> None:
    for kind in ("json", "hash"):
        world.both(kind, kind=kind)
        world.access_log(kind)
        world.index("u1", kind)
        world.idle_for(kind, 1000)
    world.run()
    assert all(int(world.client.object("IDLETIME", f"sess:{kind}")) >= 1000 for kind in ("json", "hash"))


def test_r3_5_in_a_huge_index_only_what_points_nowhere_goes(world: SyncWorld) -> None:
    """With members of every sort: as Java writes them, other bytes, and the id of a key of another type."""
    java = b"\xac\xed\x00\x05t\x00\x04"
    world.both("live")
    world.key("jav1", kind="list")
    world.key("list", kind="list")
    known = [b"live", b"list", java + b"jav1", b"\xff\xfe", b"\xac\xed"]
    world.client.sadd("user_sess:u1", *known, java + b"jav2", *(f"stale{number}" for number in range(12_000)))
    assert world.run().redis.index_entries_removed == 12_001
    assert world.members("u1") == set(known)


# --- TTLs -----------------------------------------------------------------------------------------------------------


def test_r3_5_a_key_without_a_ttl_gets_the_default(world: SyncWorld) -> None:
    world.both("bare", ttl=None)
    world.both("bare-hash", ttl=None, kind="hash")
    world.both("fine", ttl=700)
    tally = world.run(sync={"defaultTtlSeconds": 5000})
    assert tally.redis.ttl_added == 2
    assert 4800 <= world.ttl("bare") <= 5000
    assert 4800 <= world.ttl("bare-hash") <= 5000
    assert world.ttl("fine") <= 700
    assert changes(world.run()) == (0, 0, 0, 0)


@pytest.mark.parametrize(("began", "expected"), [(600, 3000), (None, 3600), (90_000, 60), (3590, 60), (-300, 3600)])
def test_r3_5_with_an_absolute_timeout_the_ttl_ends_with_it(
    world: SyncWorld, began: float | None, expected: int
) -> None:
    world.row("bare")
    world.key("bare", began=began, ttl=None)
    world.run(absoluteTimeoutSeconds=3600)
    assert max(0, expected - 200) < world.ttl("bare") <= expected


def test_r3_5_an_orphan_gets_no_ttl_and_goes(world: SyncWorld) -> None:
    world.key("orphan", ttl=None)
    tally = world.run()
    assert (tally.redis.ttl_added, tally.redis.deleted) == (0, 1)


def test_r3_5_a_list_named_like_a_session_gets_no_ttl(world: SyncWorld) -> None:
    world.row("odd")
    world.key("odd", kind="list", ttl=None)
    assert world.run().redis.ttl_added == 0
    assert world.ttl("odd") == -1


# --- user indexes ---------------------------------------------------------------------------------------------------


def test_r3_5_index_entries_that_point_nowhere_go_and_others_stay(world: SyncWorld) -> None:
    world.both("live")
    world.row("row-only")
    world.key("list", kind="list")
    world.index("u1", "live", "row-only", "list", "stale", b"\xff\xfe")
    world.index("u2", "stale-too")
    tally = world.run()
    assert world.members("u1") == {b"live", b"row-only", b"list", b"\xff\xfe"}
    assert "user_sess:u2" not in world.key_names()
    assert tally.redis.index_entries_removed == 2


@pytest.mark.parametrize("arrival", ["row", "key"])
def test_r3_5_an_index_entry_whose_session_arrives_during_the_wait_stays(world: SyncWorld, arrival: str) -> None:
    world.index("u1", "new")
    arrive: Callable[[], None] = lambda: world.row("new") if arrival == "row" else world.key("new")  # noqa: E731
    clock = InstantClock(arrive)
    assert world.run(clock=clock).redis.index_entries_removed == 0
    assert world.members("u1") == {b"new"}
    assert clock.waits == [GRACE]


def test_r3_5_an_index_of_the_wrong_type_is_skipped_with_one_warning_and_no_name(world: SyncWorld) -> None:
    for user in ("canary-a", "canary-b"):
        world.client.set(f"user_sess:{user}", "a string")
    world.index("u1", "stale")
    before = world.client.get("user_sess:canary-a")
    assert world.run().redis.index_entries_removed == 1
    assert world.client.get("user_sess:canary-a") == before
    warnings = [fields for level, _, fields in world.log.lines if level == "warning" and "keys" in fields]
    assert [w["keys"] for w in warnings] == [2]
    assert "canary" not in repr(world.log.lines)


def test_r3_5_without_an_index_template_indexes_are_left_alone(world: SyncWorld) -> None:
    world.index("u1", "stale")
    assert world.run(keys={"session": "sess:{id}"}).redis.index_entries_removed == 0
    assert world.members("u1") == {b"stale"}


# --- missing keys ---------------------------------------------------------------------------------------------------


def test_r3_5_a_live_row_without_a_key_is_reported_and_kept(world: SyncWorld) -> None:
    world.both("live")
    world.row("lost")
    tally = world.run()
    assert tally.redis.missing == 1
    assert tally.deleted == 0
    assert world.rows() == {"live", "lost"}


def test_r3_5_a_live_row_without_a_key_is_deleted_if_the_policy_says_so(world: SyncWorld) -> None:
    world.both("live")
    world.row("lost")
    world.access_log("lost")
    world.index("u1", "live", "lost")
    clock = InstantClock()
    tally = world.run(clock=clock, sync=DELETE)
    assert world.rows() == {"live"}
    assert world.key_names() == {"sess:live", "user_sess:u1"}
    assert world.members("u1") == {b"live"}
    assert (tally.redis.missing, tally.deleted, tally.redis.deleted) == (1, 1, 0)
    assert clock.waits == [GRACE]


@pytest.mark.parametrize("sync", [{}, DELETE])
def test_r3_5_a_row_younger_than_the_grace_is_not_missing_yet(world: SyncWorld, sync: dict[str, str]) -> None:
    world.row("new", began=1, used=3600)
    world.row("used", began=7200, used=1)
    world.row("expired", began=90_000, used=80_000)
    tally = world.run(sync=sync)
    assert tally.redis.missing == 0
    assert world.rows() == {"new", "used", "expired"}


def test_r3_5_a_row_whose_key_comes_back_is_kept(world: SyncWorld) -> None:
    world.row("back")
    tally = world.run(clock=InstantClock(lambda: world.key("back")), sync=DELETE)
    assert world.rows() == {"back"}
    assert (tally.redis.missing, tally.deleted) == (0, 0)


def test_r3_5_a_row_used_during_the_wait_is_kept(world: SyncWorld) -> None:
    world.row("used")

    def use() -> None:
        world.drop_row("used")
        world.row("used", used=0)

    tally = world.run(clock=InstantClock(use), sync=DELETE)
    assert world.rows() == {"used"}
    assert tally.deleted == 0


def test_r3_5_a_key_of_another_type_is_there_all_the_same(world: SyncWorld) -> None:
    world.row("odd")
    world.key("odd", kind="list")
    assert world.run(sync=DELETE).redis.missing == 0
    assert world.rows() == {"odd"}


def test_r6_deleting_rows_heeds_what_the_run_has_deleted_already(world: SyncWorld) -> None:
    for number in range(5):
        world.row(f"lost{number}")
    before = Tally(deleted=4)
    tally = world.run(sync=DELETE, safety={"maxDeletions": 6}, tally=before)
    assert (tally.deleted, tally.remaining, tally.redis.missing) == (6, 3, 5)
    assert len(world.rows()) == 3


# --- safety ---------------------------------------------------------------------------------------------------------


def test_r6_too_many_orphans_and_none_is_deleted(world: SyncWorld) -> None:
    for number in range(4):
        world.both(f"live{number}")
    for number in range(6):
        world.key(f"orphan{number}")
    before = world.snapshot()
    with pytest.raises(SafetyLimitError, match=r"6 of 10 session keys .*safety\.maxDeletePercent.*right database"):
        world.run(safety={"alwaysAllowedDeletions": 5})
    assert world.snapshot() == before
    # At the limit is not over it.
    assert world.run(safety={"alwaysAllowedDeletions": 5, "maxDeletePercent": 60}).redis.deleted == 6


def test_r6_a_few_orphans_are_always_allowed(world: SyncWorld) -> None:
    for number in range(5):
        world.key(f"orphan{number}")
    assert world.run(safety={"alwaysAllowedDeletions": 5, "maxDeletePercent": 1}).redis.deleted == 5


def test_r6_orphans_are_no_sessions_and_not_limited_by_max_deletions(world: SyncWorld) -> None:
    for number in range(5):
        world.key(f"orphan{number}")
    assert world.run(safety={"maxDeletions": 1}).redis.deleted == 5


def test_r6_an_empty_redis_ends_no_session(world: SyncWorld) -> None:
    for number in range(6):
        world.row(f"live{number}")
    safety = {"alwaysAllowedDeletions": 5}
    with pytest.raises(SafetyLimitError, match=r"refused: 6 of 6 live rows .*safety\.maxDeletePercent.*right Redis"):
        world.run(sync=DELETE, safety=safety)
    assert len(world.rows()) == 6
    # Reporting deletes nothing, so there is nothing to refuse.
    assert world.run(safety=safety).redis.missing == 6


def test_r6_a_dry_run_changes_nothing_and_counts_everything(world: SyncWorld) -> None:
    world.both("bare", ttl=None)
    for number in range(6):
        world.key(f"orphan{number}")
        world.access_log(f"orphan{number}")
    world.row("lost")
    world.index("u1", "stale", "orphan0")
    before, rows = world.snapshot(), world.rows()
    tally = world.run(dry_run=True, sync=DELETE, safety={"alwaysAllowedDeletions": 5})
    assert world.snapshot() == before
    assert world.ttl("bare") == -1
    assert world.rows() == rows
    assert (tally.redis.sessions, tally.redis.orphaned, tally.redis.missing) == (7, 6, 1)
    assert changes(tally) == (0, 0, 0, 0)
    assert world.log.events("warning").count("safety limit exceeded") == 1


# --- stopping -------------------------------------------------------------------------------------------------------


def test_r2_11_a_request_to_stop_leaves_what_was_not_looked_at_twice(world: SyncWorld) -> None:
    world.key("orphan")
    clock = InstantClock()
    clock = InstantClock(lambda: clock.request_stop())  # noqa: PLW0108 - the clock of the line itself
    with pytest.raises(StopRequestedError):
        world.run(clock=clock)
    assert "sess:orphan" in world.key_names()
    assert world.run().redis.deleted == 1


def test_one_line_tells_the_counts_and_no_names(world: SyncWorld) -> None:
    world.both("canary-live", "canary-user")
    world.key("canary-orphan", "canary-user")
    world.index("canary-user", "canary-stale")
    world.run()
    assert world.log.events("info").count("redis sync finished") == 1
    assert "canary" not in repr(world.log.lines)


# --- any stores at all ------------------------------------------------------------------------------------------------

IDS = ["a", "b", "c", "a:b", "*", "é", "a\nb"]
FOREIGN = [b"other", b"sess:", b"sess:\xff", b"SESS:a", b"user_sess", b"access_logs:a", b"zz:sess:a"]


@dataclass(frozen=True)
class Given:
    """What is known of one id: its row, its key, and what else there is of it."""

    row: str = "none"
    key: str = "none"
    ttl: bool = True
    user: str | None = "u1"
    log: bool = False
    indexed_by: frozenset[str] = field(default_factory=frozenset)


GIVEN = st.builds(
    Given,
    row=st.sampled_from(["none", "live", "expired"]),
    key=st.sampled_from(["none", "json", "hash", "empty", "list"]),
    ttl=st.booleans(),
    user=st.sampled_from(["u1", "u2", None]),
    log=st.booleans(),
    indexed_by=st.frozensets(st.sampled_from(["u1", "u2"])),
)


@settings(
    max_examples=at_most(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    stores=st.dictionaries(st.sampled_from(IDS), GIVEN),
    foreign=st.sets(st.sampled_from(FOREIGN)),
    delete=st.booleans(),
    dry_run_first=st.booleans(),
)
def test_r2_8_r3_5_any_two_stores_agree_after_one_run(
    world: SyncWorld, stores: dict[str, Given], foreign: set[bytes], delete: bool, dry_run_first: bool
) -> None:
    world.clear()
    for session_id, what in stores.items():
        if what.row != "none":
            ages = (3600, 600) if what.row == "live" else (90_000, 80_000)
            world.row(session_id, what.user, began=ages[0], used=ages[1])
        if what.key != "none":
            world.key(session_id, what.user, ttl=1800 if what.ttl else None, kind=what.key)
        if what.log:
            world.access_log(session_id)
        for user in what.indexed_by:
            world.index(user, session_id)
    for key in foreign:
        world.client.set(key, b"\x00foreign")
    before, rows = world.snapshot(), world.rows()
    policy = {"sync": DELETE if delete else {}, "safety": ALWAYS}

    if dry_run_first:
        world.run(dry_run=True, **policy)  # type: ignore[arg-type]
        assert (world.snapshot(), world.rows()) == (before, rows)
    tally = world.run(**policy)  # type: ignore[arg-type]

    after = world.snapshot()
    lost = {i for i, w in stores.items() if w.row == "live" and w.key == "none"}
    orphans = {i for i, w in stores.items() if w.row == "none" and w.key in ("json", "hash", "empty")}
    assert world.rows() == rows - (lost if delete else set())
    assert tally.redis.missing == len(lost)
    assert tally.redis.orphaned == tally.redis.deleted == len(orphans)
    gone = orphans | (lost if delete else set())
    for session_id, what in stores.items():
        name = f"sess:{session_id}".encode()
        assert after.get(name) == (None if session_id in orphans else before.get(name))
        log = f"access_log:{session_id}".encode()
        nobody = what.row == what.key == "none"
        assert after.get(log) == (None if session_id in gone or nobody else before.get(log))
        stays = session_id not in gone and (what.row != "none" or what.key != "none")
        for user in ("u1", "u2"):
            # A lost row's entry in another user's index points nowhere from now on: the next run sees to that.
            if not (delete and session_id in lost and user != what.user):
                assert (session_id.encode() in world.members(user)) == (user in what.indexed_by and stays)
        if what.row != "none" and what.key in ("json", "hash", "empty"):
            assert world.ttl(session_id) > 0
    for key in foreign:
        assert after[key] == before[key]

    world.run(**policy)  # type: ignore[arg-type]
    settled = world.snapshot()
    assert changes(world.run(**policy)) == (0, 0, 0, 0)  # type: ignore[arg-type]
    assert world.snapshot() == settled
