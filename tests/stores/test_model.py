"""The requirements as a small model in memory: any store under any policy ends up as the model says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from policy.manifest import SessionPolicy
from policy.profiles import resolve_lifetime
from policy.report import Outcome
from tests.support.runs import policy, run
from tests.support.session_stores import TABLE, SessionStores

USERS = ["ann", "bob", "cleo"]
# Ages are odd numbers of minutes and timeouts even ones: the time a test takes moves nothing over an edge.
ages = st.integers(0, 60).map(lambda n: (2 * n + 1) * 60)
timeouts = st.integers(1, 40).map(lambda n: 2 * n * 60)


@dataclass(frozen=True)
class Row:
    """A session; times are seconds before now, None where unknown. `ends` lies ahead if negative."""

    id: str
    user: str | None
    began: int
    used: int
    ends: int | None


@dataclass(frozen=True)
class Key:
    """A session in Redis."""

    id: str
    user: str | None
    used: int | None
    has_ttl: bool
    log: bool


@dataclass(frozen=True)
class World:
    rows: tuple[Row, ...]
    keys: tuple[Key, ...]
    index: tuple[tuple[str, str], ...]


ids = st.integers(0, 25).map(lambda n: f"s{n:02}")
users = st.sampled_from([*USERS, None])
rows = st.lists(
    st.builds(Row, ids, users, ages, ages, st.one_of(st.none(), ages, ages.map(lambda a: -a))),
    max_size=20,
    unique_by=(lambda r: r.id, lambda r: (r.used, r.user), lambda r: (r.began, r.user)),  # no ties
)
keys = st.lists(
    st.builds(Key, ids, users, st.one_of(st.none(), ages), st.booleans(), st.booleans()),
    max_size=20,
    unique_by=lambda k: k.id,
)
indexes = st.lists(st.tuples(st.sampled_from(USERS), ids), max_size=20, unique=True)
worlds = st.builds(lambda r, k, i: World(tuple(r), tuple(k), tuple(i)), rows, keys, indexes)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    idle = draw(timeouts)
    absolute = draw(
        st.one_of(st.none(), timeouts.filter(lambda t: t >= idle), st.integers(41, 80).map(lambda n: 120 * n))
    )
    spec: dict[str, Any] = {
        "sessionTimeoutSeconds": idle,
        "cleanupBatchSize": draw(st.integers(1, 8)),
        "maxConcurrentSessions": draw(st.integers(0, 4)),
        "concurrency": {
            "onExceed": draw(st.sampled_from(["EvictLeastRecentlyUsed", "EvictOldest", "EvictNewest", "Report"])),
            "exemptUsers": draw(st.lists(st.sampled_from(USERS), max_size=1)),
        },
        "sync": {"graceSeconds": 0, "onMissingRedisSession": draw(st.sampled_from(["Report", "Delete"]))},
    }
    return spec if absolute is None else {**spec, "absoluteTimeoutSeconds": absolute}


# --- the model -------------------------------------------------------------------------------------------------------


@dataclass
class Expected:
    rows: set[str]
    expired: int
    over_limit: int
    evicted: int
    deleted: int


def expected(world: World, obeyed: SessionPolicy, with_redis: bool) -> Expected:
    spec, lifetime = obeyed.spec, resolve_lifetime(obeyed.spec)
    used_in_redis = {k.id: k.used for k in world.keys if k.used is not None} if with_redis else {}

    def is_expired(row: Row) -> bool:
        if lifetime.absolute is not None and row.began > lifetime.absolute:
            return True
        if row.ends is not None and row.ends > 0:
            return True
        return min(row.used, used_in_redis.get(row.id, row.used)) > lifetime.idle

    def counts_for_the_limit(row: Row) -> bool:
        # The limit goes by the database alone: a session that only Redis knows to be in use takes no one's place.
        return not is_expired(row) and row.used <= lifetime.idle

    live = [row for row in world.rows if not is_expired(row)]
    expired = len(world.rows) - len(live)
    excess: list[Row] = []
    limit = spec.max_concurrent_sessions
    for user in {row.user for row in live} - {None, *spec.concurrency.exempt_users}:
        own = [row for row in live if row.user == user and counts_for_the_limit(row)]
        best_first = {
            "EvictOldest": lambda row: row.began,
            "EvictNewest": lambda row: -row.began,
        }.get(spec.concurrency.on_exceed.value, lambda row: row.used)
        excess += sorted(own, key=best_first)[limit:] if limit else []
    evicted = [] if spec.concurrency.on_exceed.value == "Report" else excess
    left = {row.id for row in live} - {row.id for row in evicted}
    deleted = expired + len(evicted)
    if with_redis and spec.sync.on_missing_redis_session.value == "Delete":
        there = {k.id for k in world.keys}
        missing = {row.id for row in live if row.id in left and row.id not in there}
        left -= missing
        deleted += len(missing)
    return Expected(left, expired, len(excess), len(evicted), deleted)


# --- the stores ------------------------------------------------------------------------------------------------------


def fill(stores: SessionStores, world: World) -> None:
    now = datetime.now(UTC)
    with stores.engine.begin() as connection:
        connection.execute(TABLE.delete())
    stores.rows(
        {
            "session_id": row.id,
            "user_id": row.user,
            "created_at": now - timedelta(seconds=row.began),
            "last_accessed_at": now - timedelta(seconds=row.used),
            "expires_at": None if row.ends is None else now - timedelta(seconds=row.ends),
        }
        for row in world.rows
    )
    if stores.redis_url is None:
        return
    stores.redis.flushdb()
    with stores.redis.pipeline() as pipeline:
        for key in world.keys:
            content: dict[str, Any] = {} if key.user is None else {"userId": key.user}
            if key.used is not None:
                content["lastAccessedAt"] = now.timestamp() - key.used
            pipeline.set(f"sess:{key.id}", json.dumps(content), ex=86400 if key.has_ttl else None)
            if key.log:
                pipeline.lpush(f"access_log:{key.id}", "entry")
        for user, session_id in world.index:
            pipeline.sadd(f"user_sess:{user}", session_id)
        pipeline.set("cart:1", "somebody else's")
        pipeline.execute()


def check_redis(stores: SessionStores, world: World, left: set[str]) -> None:
    there = {k.id: k for k in world.keys}
    kept = {f"sess:{i}" for i in there if i in left}
    found = stores.redis_keys()
    assert {key for key in found if key.startswith("sess:")} == kept
    assert all(stores.redis.ttl(key) > 0 for key in kept)
    assert {key for key in found if key.startswith("access_log:")} >= {
        f"access_log:{i}" for i, k in there.items() if i in left and k.log
    }
    for key in (key for key in found if key.startswith("access_log:")):
        assert key.partition(":")[2] in left
    assert "cart:1" in found


def stale_entries(stores: SessionStores, world: World, left: set[str]) -> set[tuple[str, str]]:
    """Index entries that should have gone; those that should be there must be."""
    entries = {(u, i) for u in USERS for i in stores.members(u)}
    right = {(user, i) for user, i in world.index if i in left}
    assert entries >= right
    return entries - right


MANY = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to make a failing example smaller takes minutes here
)


@MANY
@given(world=worlds, spec=specs())
def test_r2_a_database_ends_up_as_the_requirements_say(
    database: SessionStores, world: World, spec: dict[str, Any]
) -> None:
    obeyed = policy(**spec)
    fill(database, world)
    check(database, world, obeyed, with_redis=False)


@MANY
@given(world=worlds, spec=specs())
def test_r2_a_database_and_a_redis_end_up_as_the_requirements_say(
    stores: SessionStores, world: World, spec: dict[str, Any]
) -> None:
    obeyed = policy(**spec, redis=True)
    fill(stores, world)
    check(stores, world, obeyed, with_redis=True)


def check(stores: SessionStores, world: World, obeyed: SessionPolicy, *, with_redis: bool) -> None:
    model = expected(world, obeyed, with_redis)
    result = run(obeyed, stores.database_url, stores.redis_url if with_redis else None)
    counts = result.report.sessions
    assert (result.report.outcome, counts.failed, counts.remaining) == (Outcome.SUCCEEDED, 0, 0)
    assert stores.ids() == model.rows
    assert counts.expired == model.expired
    assert (counts.over_limit, counts.evicted, counts.deleted) == (model.over_limit, model.evicted, model.deleted)
    assert counts.active == len(model.rows)
    stale = set()
    if with_redis:
        check_redis(stores, world, model.rows)
        stale = stale_entries(stores, world, model.rows)
        # Rows without a key go last of all. If another user's index names such a session, the next run finds it.
        owners = {row.id: row.user for row in world.rows}
        assert all(owners[i] != user for user, i in stale)
        assert not stale or obeyed.spec.sync.on_missing_redis_session.value == "Delete"
    before = stores.dump()
    again = run(obeyed, stores.database_url, stores.redis_url if with_redis else None)
    after = stores.dump()
    assert again.deleted == 0
    if stale:
        assert stale_entries(stores, world, model.rows) == set()
        return
    for part in before:
        if part != "session_statistics":
            assert after[part] == before[part]


@pytest.mark.parametrize("age", [60, 61 * 60])
def test_the_model_knows_the_plain_cases(age: int) -> None:
    world = World((Row("s", "ann", age, age, None),), (), ())
    left = expected(world, policy(sessionTimeoutSeconds=3600), with_redis=False).rows
    assert left == ({"s"} if age == 60 else set())
