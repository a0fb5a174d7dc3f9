"""R2.5: users over the maximum lose the excess; the policy decides which."""

from __future__ import annotations

import pytest

from policy.report import Outcome
from tests.support.runs import policy, run
from tests.support.session_stores import HOUR, SessionStores

# `make test` tests the SQL of the other databases in few modules, and `make test-all` everywhere.
pytestmark = pytest.mark.representative(database_url=["sqlite"])


def fill(stores: SessionStores) -> None:
    """`a` is over the limit of 3 by two; the oldest is the one used last. `b` is at the limit."""
    for n, (began, used) in enumerate([(5000, 1), (4000, 500), (3000, 400), (2000, 300), (1000, 200)]):
        stores.add(f"a{n}", "a", began=began, used=used)
    for n in range(3):
        stores.add(f"b{n}", "b", used=10 * n)


@pytest.mark.parametrize(
    ("on_exceed", "evicted"),
    [
        ("EvictLeastRecentlyUsed", {"a1", "a2"}),
        ("EvictOldest", {"a0", "a1"}),
        ("EvictNewest", {"a3", "a4"}),
        ("Report", set()),
    ],
)
def test_r2_5_the_policy_decides_who_goes(database: SessionStores, on_exceed: str, evicted: set[str]) -> None:
    fill(database)
    before = database.ids()
    obeyed = policy(maxConcurrentSessions=3, concurrency={"onExceed": on_exceed})
    result = run(obeyed, database.database_url)
    assert before - database.ids() == evicted
    counts = result.report.sessions
    assert (counts.over_limit, counts.evicted, counts.deleted, counts.remaining) == (2, len(evicted), len(evicted), 0)
    assert counts.active == 8 - len(evicted)
    assert result.report.outcome is Outcome.SUCCEEDED
    assert run(obeyed, database.database_url).deleted == 0


def test_r2_5_zero_means_any_number(database: SessionStores) -> None:
    fill(database)
    result = run(policy(maxConcurrentSessions=0), database.database_url)
    assert (result.report.sessions.over_limit, len(database.ids())) == (0, 8)


def test_r2_5_exempt_users_may_have_any_number(database: SessionStores) -> None:
    fill(database)
    obeyed = policy(maxConcurrentSessions=1, concurrency={"exemptUsers": ["a", "x'; DROP TABLE sessions --"]})
    result = run(obeyed, database.database_url)
    assert database.ids() == {"a0", "a1", "a2", "a3", "a4", "b0"}
    assert result.report.sessions.over_limit == 2


def test_r2_5_sessions_without_an_owner_are_no_users(database: SessionStores) -> None:
    database.add_many((f"s{n}", None) for n in range(5))
    run(policy(maxConcurrentSessions=1), database.database_url)
    assert len(database.ids()) == 5


def test_r2_5_expired_sessions_do_not_count(database: SessionStores) -> None:
    database.add_many(((f"e{n}", "a") for n in range(4)), used=HOUR)
    database.add_many((f"l{n}", "a") for n in range(3))
    result = run(policy(maxConcurrentSessions=3), database.database_url)
    assert database.ids() == {"l0", "l1", "l2"}
    assert (result.report.sessions.over_limit, result.report.sessions.expired) == (0, 4)


def test_r2_5_of_equal_sessions_exactly_the_excess_goes(database: SessionStores) -> None:
    """Times that are all the same, and several pages of users and sessions."""
    import datetime

    moment = datetime.datetime.now(datetime.UTC)
    database.rows(
        {"session_id": f"u{u}-{n:02}", "user_id": f"u{u}", "created_at": moment, "last_accessed_at": moment}
        for u in range(7)
        for n in range(9)
    )
    run(policy(maxConcurrentSessions=4, cleanupBatchSize=5), database.database_url)
    left = database.ids()
    assert {u: len([i for i in left if i.startswith(f"u{u}-")]) for u in range(7)} == dict.fromkeys(range(7), 4)


def test_r2_5_evicted_sessions_leave_redis_too(stores: SessionStores) -> None:
    fill(stores)
    for n in range(5):
        stores.add_key(f"a{n}", "a")
    run(policy(redis=True, maxConcurrentSessions=3), stores.database_url, stores.redis_url)
    assert {key for key in stores.redis_keys() if "a" in key.partition(":")[2]} == {
        *(f"{kind}:a{n}" for kind in ("sess", "access_log") for n in (0, 3, 4)),
        "user_sess:a",
    }
    assert stores.redis.smembers("user_sess:a") == {b"a0", b"a3", b"a4"}


def test_sqlite_orders_moments_and_not_their_spelling(sqlite_url: str) -> None:
    stores = SessionStores(sqlite_url)
    stores.add("x", used=1)
    stores.sql(
        "UPDATE sessions SET last_accessed_at = strftime('%Y-%m-%dT%H:%M:%SZ', 'now')",  # the newest, but T sorts high
        "INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at, expires_at)"
        " SELECT 'older', user_id, created_at, strftime('%Y-%m-%dT%H:%M:%S', 'now', '+9 hours',"
        " '-10 minutes') || '+09:00', NULL FROM sessions",
    )
    run(policy(maxConcurrentSessions=1), stores.database_url)
    assert stores.ids() == {"x"}
    stores.close()
