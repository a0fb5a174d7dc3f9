"""R3.2: policies with a Redis and no database. All steps, on real servers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policy.spec import OnExceed, Retry
from policy.stores import RedisStore as Settings
from stores.model.errors import ClockSkewError, LockHeldError, LockLostError, SafetyLimitError
from stores.model.sessions import Session, Sessions
from stores.redis.connection.connect import connect
from stores.redis.redis_only import lock as redis_lock
from stores.redis.store import RedisStore
from tests.support.examples import at_most
from tests.support.interruptions import Interruptions
from tests.support.kube import eventually
from tests.support.redis_only import HOUR, RedisOnly
from tests.support.servers.redis_cluster import EmbeddedRedisCluster
from tests.support.servers.redis_sentinel import MASTER_NAME, EmbeddedRedisSentinels
from tests.support.servers.restartable import RestartableRedis
from tests.support.sync_world import SECRET, InstantClock, Log

BY_CONTENT = {"session": "sess:{id}", "accessLog": "access_log:{id}"}


@pytest.fixture
def world(redis_url: str) -> Iterator[RedisOnly]:
    made = RedisOnly(redis_url)
    yield made
    made.close()


def test_it_is_what_the_steps_expect(world: RedisOnly) -> None:
    opened = world.open()
    sessions: Sessions = opened.sessions
    assert sessions.totals().total == 0
    opened.close()


# --- R2.2 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["json", "hash"])
def test_r2_2_r4_1_idle_absolute_and_own_expiry_end_a_session_and_nothing_else_does(
    world: RedisOnly, kind: str
) -> None:
    world.add("live", kind=kind)
    world.add("idle", used=HOUR, kind=kind)
    world.add("old", began=3 * HOUR, kind=kind)
    world.add("ended", ends=-60, ttl=None, kind=kind)
    world.add("prolonged", ends=-60, ttl=HOUR, kind=kind)  # the TTL is the later word
    world.add("ends-later", ends=600, ttl=None, kind=kind)
    world.add("silent", None, began=None, used=None, kind=kind)
    world.client.set("sess:opaque", b"\x80\x04 pickled", ex=HOUR)
    world.client.set("sess:empty", b"", ex=HOUR)
    tally = world.run(absoluteTimeoutSeconds=2 * HOUR)
    assert world.ids() == {"live", "prolonged", "ends-later", "silent", "opaque", "empty"}
    assert (tally.expired, tally.deleted, tally.active, tally.remaining) == (3, 3, 6, 0)
    assert world.members("u") == {"live", "prolonged", "ends-later"}
    assert {k for k in world.names() if k.startswith("access_log:")} == {
        f"access_log:{i}" for i in ("live", "prolonged", "ends-later", "silent")
    }
    assert world.active_users == 1
    assert not {k for k in world.names() if k.startswith("session-policy:")}


def test_r2_2_many_sessions_go_in_batches(world: RedisOnly) -> None:
    for number in range(1_500):
        world.add(f"{number:04}", f"u{number % 50}", used=HOUR if number % 3 else 60, residue=False)
    tally = world.run(cleanupBatchSize=100, maxConcurrentSessions=0)
    assert (tally.expired, tally.deleted, tally.active) == (1000, 1000, 500)
    assert len(world.ids()) == 500
    assert world.active_users == 50


def test_a_session_used_at_the_last_moment_survives(world: RedisOnly, monkeypatch: pytest.MonkeyPatch) -> None:
    touches: dict[str, Callable[[], object]] = {
        "rewritten": lambda: world.add("rewritten", used=0),
        "prolonged": lambda: world.client.expire("sess:prolonged", 2 * HOUR),
        "persisted": lambda: world.client.persist("sess:persisted"),
        "hash": lambda: world.client.hset("sess:hash", "lastAccessedAt", str(time.time())),
    }
    for name in touches:
        world.add(name, used=HOUR, kind="hash" if name == "hash" else "json")
    opened = world.open()
    sessions = [Session(name, "u") for name in touches]
    # Between the look and the deletion, which are two commands.
    looked = opened.store.delete_if_unchanged

    def touch_first(*arguments: Any) -> Any:
        for touch in touches.values():
            touch()
        return looked(*arguments)

    monkeypatch.setattr(opened.store, "delete_if_unchanged", touch_first)
    assert opened.sessions.delete_expired(sessions).deleted == []
    assert world.ids() == world.members("u") == touches.keys()
    opened.close()


def test_r6_too_large_a_share_is_refused(world: RedisOnly) -> None:
    for number in range(150):
        world.add(f"{number}", used=HOUR)
    world.add("live")
    with pytest.raises(SafetyLimitError, match="150 of 151"):
        world.run(safety={"maxDeletePercent": 50})
    assert len(world.ids()) == 151


def test_a_dry_run_changes_nothing(world: RedisOnly) -> None:
    for number in range(5):
        world.add(f"l{number}", began=number, ttl=None)
        world.add(f"e{number}", used=HOUR)
    world.client.sadd("user_sess:u", "stale")
    before = {key: world.client.dump(key) for key in world.names()}
    tally = world.run(dry_run=True, maxConcurrentSessions=3)
    assert {key: world.client.dump(key) for key in world.names()} == before
    assert (tally.expired, tally.over_limit, tally.deleted, tally.redis.ttl_added) == (5, 2, 0, 0)


# --- R2.5 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [None, BY_CONTENT], ids=["index", "content"])
@pytest.mark.parametrize(
    ("on_exceed", "left"),
    [
        (OnExceed.EVICT_LEAST_RECENTLY_USED, {"a1", "a2"}),
        (OnExceed.EVICT_OLDEST, {"a0", "a1"}),
        (OnExceed.EVICT_NEWEST, {"a3", "a4"}),
    ],
)
def test_r2_5_a_user_over_the_limit_loses_the_excess(
    world: RedisOnly, keys: dict[str, str] | None, on_exceed: OnExceed, left: set[str]
) -> None:
    # a0 began last; a1 and a2 were used last.
    for number, used in enumerate((500, 10, 20, 300, 400)):
        world.add(f"a{number}", "a", began=600 + 100 * number, used=used)
    world.add("idle", "a", used=HOUR)  # expired: it does not count
    world.add("b", "b")
    for number in range(5):
        world.add(f"service{number}", "service")
        world.add(f"nobody{number}", None)
    chosen: dict[str, Any] = {"keys": keys} if keys else {}
    tally = world.run(
        maxConcurrentSessions=2, concurrency={"onExceed": on_exceed.value, "exemptUsers": ["service"]}, **chosen
    )
    others = {"b", *(f"{kind}{n}" for kind in ("service", "nobody") for n in range(5))}
    assert world.ids() == left | others
    assert (tally.over_limit, tally.evicted, tally.deleted, tally.expired) == (3, 3, 4, 1)
    if not keys:
        assert world.members("a") == left


def test_r2_5_an_index_tells_whose_an_opaque_session_is(world: RedisOnly) -> None:
    for number in range(4):
        world.client.set(f"sess:{number}", b"\x80 opaque", ex=HOUR)
        world.client.sadd("user_sess:u", str(number))
    world.client.sadd("user_sess:u", *(f"stale{number}" for number in range(10)))
    tally = world.run(maxConcurrentSessions=3)
    assert (tally.over_limit, tally.evicted) == (1, 1)
    assert len(world.ids()) == 3
    assert world.members("u") == world.ids()


def test_r2_5_a_user_who_logs_out_elsewhere_in_time_loses_nothing(world: RedisOnly) -> None:
    for number in range(4):
        world.add(f"{number}", used=100 * number)
    opened = world.open()
    (page,) = list(opened.sessions.over_limit_pages(3, OnExceed.EVICT_LEAST_RECENTLY_USED, []))
    assert [s.key for s in page] == ["3"]
    world.client.unlink("sess:0")
    assert opened.sessions.delete_over_limit(page, 3, OnExceed.EVICT_LEAST_RECENTLY_USED).deleted == []
    assert world.ids() == {"1", "2", "3"}
    opened.close()


@pytest.mark.parametrize("keys", [None, BY_CONTENT], ids=["index", "content"])
def test_r2_5_many_users_in_small_batches(world: RedisOnly, keys: dict[str, str] | None) -> None:
    for number in range(600):
        world.add(f"{number:03}", f"u{number % 60}", used=number)
    chosen: dict[str, Any] = {"keys": keys} if keys else {}
    tally = world.run(cleanupBatchSize=7, maxConcurrentSessions=4, **chosen)
    assert (tally.over_limit, tally.evicted, tally.active) == (360, 360, 240)
    assert world.ids() == {f"{number:03}" for number in range(240)}


SESSIONS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", None]),
        st.sampled_from([None, 10, 1000, 1700, 1815, 5000]),  # used; the idle timeout is 1800
        st.sampled_from([None, 100, 7000, 8000]),  # began; the absolute timeout is 7200
        st.sampled_from([None, -100, 600]),  # its own expiry
        st.booleans(),  # has a TTL
        st.sampled_from(["json", "hash"]),
    ),
    max_size=25,
)


@settings(max_examples=at_most(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sessions=SESSIONS, limit=st.integers(0, 4), by_index=st.booleans())
def test_r2_a_run_leaves_what_the_requirements_say(
    world: RedisOnly, sessions: list[Any], limit: int, by_index: bool
) -> None:
    world.client.flushdb()
    live: dict[str, tuple[str | None, float]] = {}
    for number, (user, used, began, ends, has_ttl, kind) in enumerate(sessions):
        name = f"s{number}"
        # Distinct times, for two sessions used at the same moment may go in either order.
        exact = None if used is None else used + number / 10
        world.add(name, user, began=began, used=exact, ends=ends, ttl=HOUR if has_ttl else None, kind=kind)
        over = (used or 0) > 1800 or (began or 0) > 7200 or (not has_ttl and (ends or 0) < 0)
        if not over:
            live[name] = (user, -1.0 if exact is None else exact)
    spec: dict[str, Any] = {} if by_index else {"keys": BY_CONTENT}
    tally = world.run(absoluteTimeoutSeconds=7200, maxConcurrentSessions=limit, cleanupBatchSize=3, **spec)
    for user in ("a", "b") if limit else ():
        theirs = sorted((used, name) for name, (owner, used) in live.items() if owner == user)
        for _, name in theirs[limit:]:
            # Sessions whose last use is not known stay, in no particular order among themselves.
            if live[name][1] >= 0:
                del live[name]
    if not limit or all(used >= 0 for _, used in live.values()):
        assert world.ids() == set(live)
    else:
        assert world.ids() <= set(live)
        for user in ("a", "b"):
            theirs_now = [i for i in world.ids() if live[i][0] == user]
            assert len(theirs_now) == min(limit, sum(owner == user for owner, _ in live.values()))
    assert tally.active == len(world.ids())
    assert all(world.client.ttl(f"sess:{i}") > 0 for i in world.ids())
    assert {k.removeprefix("access_log:") for k in world.names() if k.startswith("access_log:")} == world.ids()
    again = world.run(absoluteTimeoutSeconds=7200, maxConcurrentSessions=limit, **spec)
    assert (again.expired, again.over_limit, again.deleted, again.redis.ttl_added) == (0, 0, 0, 0)


# --- R3.5 ------------------------------------------------------------------------------------------------------------


def test_r3_5_keys_without_a_ttl_get_one_and_what_points_nowhere_goes(world: RedisOnly) -> None:
    world.add("live", ttl=None)
    world.add("other")
    world.client.sadd("user_sess:u", "stale")
    world.client.rpush("access_log:stale", "x")
    world.client.set("unrelated", "x")
    tally = world.run(sync={"graceSeconds": 5, "defaultTtlSeconds": 5000})
    assert 4000 < world.client.ttl("sess:live") <= 5000
    assert world.client.ttl("sess:other") <= HOUR
    assert world.members("u") == {"live", "other"}
    assert world.names() == {
        "sess:live", "sess:other", "access_log:live", "access_log:other", "user_sess:u", "unrelated",
    }  # fmt: skip
    assert (tally.redis.sessions, tally.redis.ttl_added, tally.redis.index_entries_removed) == (2, 1, 1)


# --- the lock --------------------------------------------------------------------------------------------------------


def test_r2_1_two_runs_at_once_one_works(world: RedisOnly) -> None:
    world.add("idle", used=HOUR)
    first = world.open()
    with pytest.raises(LockHeldError):
        world.open()
    # Another template is another application's.
    world.open(world.policy(keys={"session": "other:{id}"})).close()
    assert len(first.sessions.delete_expired([Session("idle")]).deleted) == 1
    first.close()
    world.open().close()
    assert world.client.dbsize() == 0


def test_a_lost_lock_stops_the_run_before_its_next_batch(world: RedisOnly) -> None:
    for number in range(20):
        world.add(f"{number:02}", used=HOUR)
    opened = world.open(world.policy(cleanupBatchSize=5))
    pages = opened.sessions.expired_pages()
    opened.sessions.delete_expired([candidate.session for candidate in next(pages)])
    (key,) = world.client.keys("session-policy:lock:*")
    world.client.set(key, "another run's")
    with pytest.raises(LockLostError):
        next(pages)
    with pytest.raises(LockLostError):
        opened.sessions.delete_expired([Session(i) for i in world.ids()])
    assert len(world.ids()) == 15
    opened.close()
    # It gives back only what is its own.
    assert world.client.get(key) == b"another run's"


def test_the_lock_is_renewed_while_a_batch_takes_long(world: RedisOnly, monkeypatch: pytest.MonkeyPatch) -> None:
    assert redis_lock._RENEWALS_PER_TTL >= 3
    monkeypatch.setattr(redis_lock, "_RENEWALS_PER_TTL", 300)  # a whole lifetime for a machine that stands still
    store = Settings.model_validate({"urlFrom": SECRET})
    lock = redis_lock.RedisLock(
        connect(world.url, store), Retry(attempts=0), InstantClock(), Log(), template="sess:{id}"
    )
    lock.acquire()
    (key,) = world.client.keys("session-policy:lock:*")
    assert world.client.pexpire(key, 1000 * redis_lock.TTL_SECONDS // 2)
    # It goes up, and nobody called check.
    eventually(lambda: world.client.pttl(key) > 1000 * redis_lock.TTL_SECONDS // 2, what="the lock is renewed")
    lock.check()
    lock.close()
    assert not world.client.exists(key)


def test_a_killed_run_leaves_a_lock_that_ends_by_itself(world: RedisOnly) -> None:
    opened = world.open()
    (key,) = world.client.keys("session-policy:lock:*")
    assert 0 < world.client.pttl(key) <= 60_000
    opened.close()


def test_the_lock_is_no_session_whatever_the_template(world: RedisOnly) -> None:
    keys = {"session": "session-policy:{id}"}
    world.client.set("session-policy:1", json.dumps({"lastAccessedAt": time.time() - HOUR}))
    opened = world.open(world.policy(keys=keys))
    assert opened.sessions.totals().total == 1
    opened.close()


def test_r6_clocks_too_far_apart_are_refused(world: RedisOnly, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add("idle", used=HOUR)
    right = RedisStore.server_times
    monkeypatch.setattr(RedisStore, "server_times", lambda self: [t.replace(year=t.year - 1) for t in right(self)])
    with pytest.raises(ClockSkewError, match="clockSkewSeconds"):
        world.open()
    assert world.ids() == {"idle"}


# --- servers that fail -----------------------------------------------------------------------------------------------


def fill(world: RedisOnly) -> set[str]:
    """Returns what has to be left."""
    for number in range(6):
        world.add(f"live{number}", f"u{number}", ttl=None)
        world.add(f"idle{number}", f"u{number}", used=HOUR)
        world.add(f"over{number}", "many", used=60 + number)
    return {*(f"live{number}" for number in range(6)), *(f"over{number}" for number in range(4))}


def assert_left(world: RedisOnly, left: set[str]) -> None:
    assert world.ids() == left
    assert {k.removeprefix("access_log:") for k in world.names() if k.startswith("access_log:")} == left
    for number in range(6):
        assert world.members(f"u{number}") == {f"live{number}"}
    assert world.members("many") == {f"over{number}" for number in range(4)}
    assert all(world.client.ttl(f"sess:{i}") > 0 for i in left)


@pytest.mark.representative(at=[19])
@pytest.mark.parametrize("at", range(3, 52, 8))
def test_r2_redis_dies_anywhere_and_comes_back(monkeypatch: pytest.MonkeyPatch, at: int, own: RestartableRedis) -> None:
    world = RedisOnly(own.url)
    world.client.flushall()
    left = fill(world)

    def back() -> None:
        if not own.running:
            own.restart()

    interruptions = Interruptions({at: own.kill})
    with monkeypatch.context() as patch:
        interruptions.install(patch)
        world.run(
            clock=InstantClock(back), maxConcurrentSessions=4, retries={"redis": {"attempts": 2, "delaySeconds": 30}}
        )
    assert not interruptions.left
    assert left <= world.ids()
    world.run(maxConcurrentSessions=4)  # a restarted Redis scans in another order
    assert_left(world, left)
    world.close()


@pytest.fixture(scope="module")
def own() -> Iterator[RestartableRedis]:
    with RestartableRedis(options={"appendonly": "yes", "appendfsync": "always"}) as server:
        yield server


@pytest.mark.representative(at=[20])
@pytest.mark.parametrize("at", [6, 20, 40])
def test_r3_2_a_cluster_without_a_database_whose_master_dies(
    redis_cluster: EmbeddedRedisCluster, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    client: Any = redis_cluster.client()
    world = RedisOnly(redis_cluster.url, client, mode="Cluster")
    left = fill(world)
    for node in client.get_primaries():
        assert client.execute_command("WAIT", 1, 5000, target_nodes=node) >= 1
    killed: list[Any] = []

    def kill() -> None:
        killed.append(redis_cluster.owner_of("user_sess:many"))
        killed[0].kill()

    clock = InstantClock(lambda: redis_cluster.await_successor(_slot("user_sess:many")) if killed else None)
    with monkeypatch.context() as patch:
        Interruptions({at: kill}).install(patch)
        world.run(clock=clock, maxConcurrentSessions=4, retries={"redis": {"attempts": 3, "delaySeconds": 30}})
    assert killed
    assert left <= world.ids()
    world.run(maxConcurrentSessions=4)
    assert_left(world, left)
    world.close()


@pytest.mark.representative(at=[6])
@pytest.mark.parametrize("at", [6, 30])
def test_r3_2_sentinels_without_a_database_and_a_failover(
    redis_sentinels: EmbeddedRedisSentinels, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    old = redis_sentinels.master
    world = RedisOnly(redis_sentinels.url, redis_sentinels.client(), mode="Sentinel", sentinelMaster=MASTER_NAME)
    left = fill(world)
    assert world.client.wait(1, 60_000) == 1

    def strike() -> None:
        redis_sentinels.fail_over()
        redis_sentinels.await_new_master(old)

    with monkeypatch.context() as patch:
        Interruptions({at: strike}).install(patch)
        world.run(maxConcurrentSessions=4, retries={"redis": {"attempts": 3, "delaySeconds": 30}})
    assert redis_sentinels.master is not old
    world.client.close()
    world.client = redis_sentinels.client()
    assert left <= world.ids()
    world.run(maxConcurrentSessions=4)
    assert_left(world, left)
    world.close()


def test_an_application_goes_on_working_and_loses_no_live_session(world: RedisOnly) -> None:
    """R6: logins, touches and logouts while runs repeat."""
    stop, failures = threading.Event(), []

    def work() -> None:
        client = redis.Redis.from_url(world.url)
        number = 0
        while not stop.is_set():
            number += 1
            name = f"w{number}"
            # Idle for nearly as long as allowed, then used again: the run meets some of them right in between.
            content = {"userId": "w", "lastAccessedAt": time.time() - 1804, "n": number}
            client.set(f"sess:{name}", json.dumps(content), ex=HOUR)
            content["lastAccessedAt"] = time.time()
            touched = client.set(f"sess:{name}", json.dumps(content), ex=HOUR, xx=True)
            if touched and not client.exists(f"sess:{name}"):
                failures.append(name)
            client.unlink(f"sess:{name}")
        client.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(10):
            world.run(maxConcurrentSessions=0, keys={"session": "sess:{id}"})
    finally:
        stop.set()
        thread.join()
    assert not failures


def _slot(key: str) -> int:
    from redis.crc import key_slot

    return key_slot(key.encode())
