"""The requirements as a small model in memory: any store under any policy ends up as the model says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from policy.lifetime import resolve_lifetime
from policy.manifest import SessionPolicy
from policy.report import Outcome
from policy.rules import RuleAction, RuleType, SessionRule
from stores.sql.schema.tables import settings as stored
from tests.support.examples import at_most
from tests.support.runs import policy, run
from tests.support.session_stores import TABLE, SessionStores

USERS = ["ann", "bob", "cleo"]
# Ages are odd numbers of minutes and timeouts even ones: the time a test takes moves nothing over an edge.
ages = st.integers(0, 60).map(lambda n: (2 * n + 1) * 60)
ahead = ages.map(lambda age: -age)
times = st.one_of(ages, ages, ages, ages, ahead)
timeouts = st.integers(1, 40).map(lambda n: 2 * n * 60)


@dataclass(frozen=True)
class Row:
    """A session; times are seconds before now, None where unknown. What is negative lies ahead."""

    id: str
    user: str | None
    began: int
    used: int
    ends: int | None
    client: str | None = None
    revoked: bool = False

    @property
    def owned(self) -> bool:
        return bool(self.user)


# Name -> latitude, longitude and an address. The first two are neighbours, the third is a day's flight away.
PLACES = {
    "Berlin": (52.52, 13.40, "192.0.2.1"),
    "Potsdam": (52.39, 13.06, "192.0.2.2"),
    "Tokyo": (35.68, 139.69, "198.51.100.3"),
}


@dataclass(frozen=True)
class Visit:
    """An entry of an access log, so many seconds ago."""

    ago: int
    place: str


@dataclass(frozen=True)
class Key:
    """A session in Redis, with its access log, the newest visit first."""

    id: str
    user: str | None
    used: int | None
    has_ttl: bool
    log: tuple[Visit, ...]


@dataclass(frozen=True)
class Setting:
    """A row of the stored settings."""

    scope: str
    subject: str
    idle: int | None = None
    absolute: int | None = None
    limit: int | None = None

    def applies_to(self, user: str | None) -> bool:
        # The default table has neither roles nor tenants.
        return self.scope == "Global" or (self.scope == "User" and self.subject == user)


@dataclass(frozen=True)
class World:
    rows: tuple[Row, ...]
    keys: tuple[Key, ...] = ()
    index: tuple[tuple[str, str], ...] = ()
    settings: tuple[Setting, ...] = ()


ids = st.integers(0, 25).map(lambda n: f"s{n:02}")
users = st.sampled_from([*USERS, None])
owners = st.sampled_from([*USERS, None, ""])
ends = st.one_of(st.none(), ages, ahead)
clients = st.sampled_from([None, "", "phone", "laptop"])
rows = st.lists(
    st.builds(Row, ids, owners, times, times, ends, clients, st.integers(0, 5).map(lambda n: n == 0)),
    max_size=20,
    unique_by=(lambda r: r.id, lambda r: (r.used, r.user), lambda r: (r.began, r.user)),  # no ties
)
visits = st.lists(st.builds(Visit, ages, st.sampled_from(list(PLACES))), max_size=4, unique_by=lambda v: v.ago)
logs = visits.map(lambda found: tuple(sorted(found, key=lambda visit: visit.ago)))
keys = st.lists(
    st.builds(Key, ids, users, st.one_of(st.none(), ages), st.booleans(), logs),
    max_size=20,
    unique_by=lambda k: k.id,
)
indexes = st.lists(st.tuples(st.sampled_from(USERS), ids), max_size=20, unique=True)
narrower = (st.one_of(st.none(), timeouts), st.one_of(st.none(), timeouts), st.one_of(st.none(), st.integers(1, 4)))
stored_settings = st.lists(
    st.one_of(
        st.builds(Setting, st.sampled_from(["User", "User", "Role"]), st.sampled_from(USERS), *narrower),
        st.builds(Setting, st.just("Global"), st.just(""), *narrower),
    ),
    max_size=3,
    unique_by=lambda s: (s.scope, s.subject),
)


def plausible(found: list[Row]) -> tuple[Row, ...]:
    """Without more than two rows from the future: if the latest all are, a run refuses to believe the time zone."""
    from_the_future = [row for row in found if row.began < 0 or row.used < 0]
    return tuple(row for row in found if row not in from_the_future[2:])


worlds = st.builds(
    lambda r, k, i, s: World(plausible(r), tuple(k), tuple(i), tuple(s)), rows, keys, indexes, stored_settings
)


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(
        st.sampled_from(["Revoked", "LongRunning", "Ownerless", "FutureTime", "ImpossibleTravel", "AddressChange"])
    )
    rule: dict[str, Any] = {"type": kind, "action": draw(st.sampled_from(list(RuleAction))).value}
    if kind == "LongRunning":
        rule["afterSeconds"] = draw(timeouts)
    if kind == "ImpossibleTravel":
        rule["withinSeconds"] = 3570  # visits are whole pairs of minutes apart
    return rule


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    idle = draw(timeouts)
    absolute = draw(
        st.one_of(st.none(), timeouts.filter(lambda t: t >= idle), st.integers(41, 80).map(lambda n: 120 * n))
    )
    spec: dict[str, Any] = {
        "sessionTimeoutSeconds": idle,
        "cleanupBatchSize": draw(st.integers(1, 8)),
        "duplicates": {"action": draw(st.sampled_from(["Report", "KeepNewest"]))},
        "rules": draw(st.lists(rules(), max_size=4)),
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
    duplicate: int
    abnormal: int
    deleted: int


@dataclass(frozen=True)
class Bounds:
    """What a user's sessions may do: the narrowest of the policy and the settings that apply."""

    idle: float
    absolute: float
    limit: float

    @classmethod
    def of(cls, user: str | None, world: World, obeyed: SessionPolicy) -> Bounds:
        lifetime, limit = resolve_lifetime(obeyed.spec), obeyed.spec.max_concurrent_sessions
        mine = [setting for setting in world.settings if setting.applies_to(user)]

        def narrowest(policy: int | None, values: list[int | None]) -> float:
            return min([value for value in [policy, *values] if value], default=float("inf"))

        return cls(
            narrowest(lifetime.idle, [s.idle for s in mine]),
            narrowest(lifetime.absolute, [s.absolute for s in mine]),
            narrowest(limit, [s.limit for s in mine]),
        )


def travels(log: tuple[Visit, ...], within: int) -> bool:
    return any(
        abs(one.ago - other.ago) <= within and "Tokyo" in (one.place, other.place) and one.place != other.place
        for one in log
        for other in log
    )


def breaks(rule: SessionRule, row: Row, log: tuple[Visit, ...]) -> bool:
    match rule.type:
        case RuleType.IMPOSSIBLE_TRAVEL:
            assert rule.within_seconds
            return travels(log, rule.within_seconds)
        case RuleType.ADDRESS_CHANGE:
            return bool(log) and log[0].place != log[-1].place
        case RuleType.REVOKED:
            return row.revoked
        case RuleType.LONG_RUNNING:
            assert rule.after_seconds
            return row.began > rule.after_seconds
        case RuleType.OWNERLESS:
            return not row.owned
        case RuleType.FUTURE_TIME:
            return row.began < 0 or row.used < 0
    raise NotImplementedError(rule.type)


def expected(world: World, obeyed: SessionPolicy, with_redis: bool) -> Expected:
    spec = obeyed.spec
    bounds = {user: Bounds.of(user, world, obeyed) for user in {row.user for row in world.rows}}
    used_in_redis = {k.id: k.used for k in world.keys if k.used is not None} if with_redis else {}

    def has_ended(row: Row) -> bool:
        return row.began > bounds[row.user].absolute or (row.ends is not None and row.ends > 0)

    def is_idle(row: Row, used: int) -> bool:
        return used > bounds[row.user].idle

    live = [r for r in world.rows if not has_ended(r) and not is_idle(r, min(r.used, used_in_redis.get(r.id, r.used)))]
    # What follows goes by the database alone: a session that only Redis knows to be in use takes no one's place.
    judged = [row for row in live if not is_idle(row, row.used)]
    left = {row.id: row for row in live}

    visited = {k.id: k.log for k in world.keys} if with_redis else {}
    suspects = {
        row.id: [rule for rule in spec.session_rules if breaks(rule, row, visited.get(row.id, ()))] for row in judged
    }
    suspects = {session_id: broken for session_id, broken in suspects.items() if broken}

    def duplicates() -> list[Row]:
        there = [row for row in judged if row.id in left]
        older: list[Row] = []
        for group in {(row.user, row.client) for row in there if row.owned and row.client}:
            older += sorted((r for r in there if (r.user, r.client) == group), key=lambda r: r.began)[1:]
        return older

    def excess() -> list[Row]:
        on_exceed = spec.concurrency.on_exceed.value
        order = {"EvictOldest": lambda r: r.began, "EvictNewest": lambda r: -r.began}
        over: list[Row] = []
        for user in {row.user for row in judged if row.owned} - set(spec.concurrency.exempt_users):
            own = [row for row in judged if row.user == user and row.id in left]
            best_first = sorted(own, key=order.get(on_exceed, lambda r: r.used))
            over += best_first[int(min(bounds[user].limit, len(own))) :]
        return over

    found_duplicates, found_excess = len(duplicates()), len(excess())

    for row in judged:
        actions = {rule.action for rule in suspects.get(row.id, ())}
        if RuleAction.LOGOUT_EVERYWHERE in actions and row.owned:
            # A session that begins from now on is a new login, and stays, unless it is itself what is wrong.
            for other in [o for o in left.values() if o.user == row.user and o.began > 0]:
                del left[other.id]
        if actions - {RuleAction.REPORT}:
            left.pop(row.id, None)
    if spec.duplicates.action.value == "KeepNewest":
        for row in duplicates():
            del left[row.id]
    evicted = [] if spec.concurrency.on_exceed.value == "Report" else excess()
    for row in evicted:
        del left[row.id]

    if with_redis and spec.sync.on_missing_redis_session.value == "Delete":
        there = {k.id for k in world.keys}
        # What began or was used just now may be on its way to Redis.
        for row in [r for r in left.values() if r.id not in there and r.began > 0 and r.used > 0]:
            del left[row.id]
    return Expected(
        rows=set(left),
        expired=len(world.rows) - len(live),
        over_limit=found_excess,
        evicted=len(evicted),
        duplicate=found_duplicates,
        abnormal=len(suspects),
        deleted=len(world.rows) - len(left),
    )


# --- the stores ------------------------------------------------------------------------------------------------------


def fill(stores: SessionStores, world: World) -> None:
    now = datetime.now(UTC)
    with stores.engine.begin() as connection:
        connection.execute(TABLE.delete())
        connection.execute(stored.delete())
        for setting in world.settings:
            values: dict[str, Any] = {
                "idle_timeout_seconds": setting.idle,
                "absolute_timeout_seconds": setting.absolute,
            }
            values |= {"scope": setting.scope, "subject": setting.subject, "max_sessions": setting.limit}
            connection.execute(stored.insert().values(values))
    stores.rows(
        {
            "session_id": row.id,
            "user_id": row.user,
            "created_at": now - timedelta(seconds=row.began),
            "last_accessed_at": now - timedelta(seconds=row.used),
            "expires_at": None if row.ends is None else now - timedelta(seconds=row.ends),
            "client": row.client,
            "revoked_at": now - timedelta(seconds=1) if row.revoked else None,
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
            for visit in key.log:
                latitude, longitude, address = PLACES[visit.place]
                where = {"lat": latitude, "lon": longitude}
                entry = {"time": now.timestamp() - visit.ago, "ip": address, "location": where}
                pipeline.rpush(f"access_log:{key.id}", json.dumps(entry))
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
    max_examples=at_most(20),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to make a failing example smaller takes minutes here
)


# An empty text is no owner, so that strangers share no limit; and who is logged out everywhere for a session that began
# in the future loses that very session, too.
STRANGERS = World(tuple(Row(f"s{n}", "", 60 * (2 * n + 1), 60 * (2 * n + 1), None) for n in range(4)))
FROM_THE_FUTURE = World((Row("s1", "ann", -180, -180, None), Row("s2", "ann", 180, 180, None)))


@pytest.mark.representative(database_url=["sqlite"])
@MANY
@given(world=worlds, spec=specs())
@example(world=STRANGERS, spec={"maxConcurrentSessions": 2, "rules": []})
@example(world=FROM_THE_FUTURE, spec={"rules": [{"type": "FutureTime", "action": "LogoutEverywhere"}]})
def test_r3_1_a_database_ends_up_as_the_requirements_say(
    database: SessionStores, world: World, spec: dict[str, Any]
) -> None:
    check_without_redis(database, world, spec)


def check_without_redis(database: SessionStores, world: World, spec: dict[str, Any]) -> None:
    obeyed = policy(**spec)
    fill(database, world)
    check(database, world, obeyed, with_redis=False)


@pytest.mark.exhaustive
@MANY
@given(world=worlds, spec=specs())
def test_r3_1_a_database_and_a_redis_end_up_as_the_requirements_say(
    stores: SessionStores, world: World, spec: dict[str, Any]
) -> None:
    check_with_redis(stores, world, spec)


def check_with_redis(stores: SessionStores, world: World, spec: dict[str, Any]) -> None:
    obeyed = policy(**spec, redis=True)
    fill(stores, world)
    check(stores, world, obeyed, with_redis=True)


def check(stores: SessionStores, world: World, obeyed: SessionPolicy, *, with_redis: bool) -> None:
    model = expected(world, obeyed, with_redis)
    result = run(obeyed, stores.database_url, stores.redis_url if with_redis else None)
    counts = result.report.sessions
    assert (result.report.outcome, counts.failed, counts.remaining) == (Outcome.SUCCEEDED, 0, 0), result.report.message
    assert stores.ids() == model.rows
    assert counts.expired == model.expired
    assert (counts.over_limit, counts.evicted, counts.deleted) == (model.over_limit, model.evicted, model.deleted)
    assert (counts.duplicate, counts.abnormal) == (model.duplicate, model.abnormal)
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
        if part not in {"session_statistics", "session_usage"}:
            assert after[part] == before[part]


@pytest.mark.parametrize("age", [60, 61 * 60])
def test_the_model_knows_the_plain_cases(age: int) -> None:
    world = World((Row("s", "ann", age, age, None),))
    left = expected(world, policy(sessionTimeoutSeconds=3600, rules=[]), with_redis=False).rows
    assert left == ({"s"} if age == 60 else set())
