"""TBL-068, R2.1, R2.9: stored settings narrow the policy for everybody, a tenant, a role or a user."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as configure
from hypothesis import strategies as st

from job.steps import settings_verification as verification
from policy.profiles import Lifetime
from policy.report import Outcome
from stores.model.stored_settings import Scope, Setting, effective
from stores.sql.schema.tables import settings
from tests.support.examples import at_most
from tests.support.runs import policy, run
from tests.support.session_stores import HOUR, SessionStores
from tests.support.session_stores import TABLE as SESSIONS
from tests.support.steps import steps

# `make test` tests the SQL of the other databases in few modules, and `make test-all` everywhere.
pytestmark = pytest.mark.representative(database_url=["sqlite"])

COLUMNS = {
    "id": "session_id", "userId": "user_id", "createdAt": "created_at", "lastAccessedAt": "last_accessed_at",
    "tenant": "tenant", "role": "role",
}  # fmt: skip
TABLE = {"name": "sessions", "columns": {field: {"name": name} for field, name in COLUMNS.items()}}


SCOPED = sa.table("sessions", *(sa.column(c.name, c.type) for c in SESSIONS.c), sa.column("tenant"), sa.column("role"))


@pytest.fixture
def scoped(database: SessionStores) -> SessionStores:
    """The default tables, and columns for tenant and role."""
    add_columns(database)
    return database


def store(stores: SessionStores, *rows: tuple[str, str, int | None, int | None, int | None]) -> None:
    fields = ("scope", "subject", "idle_timeout_seconds", "absolute_timeout_seconds", "max_sessions")
    if rows:
        with stores.engine.begin() as connection:
            connection.execute(settings.insert(), [dict(zip(fields, row, strict=True)) for row in rows])


def add_columns(stores: SessionStores) -> None:
    stores.sql("ALTER TABLE sessions ADD COLUMN tenant VARCHAR(64)", "ALTER TABLE sessions ADD COLUMN role VARCHAR(64)")


def add(stores: SessionStores, session_id: str, user: str | None, tenant: str | None, role: str | None, **ages: float) -> None:  # fmt: skip # noqa: E501
    stores.add(session_id, user, **ages)
    with stores.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE sessions SET tenant = :t, role = :r WHERE session_id = :i"),
            {"t": tenant, "r": role, "i": session_id},
        )


def test_r2_1_settings_of_tenant_role_and_user_narrow_the_timeouts(database: SessionStores) -> None:
    add_columns(database)
    store(
        database,
        ("Tenant", "bank", 300, None, None),
        ("Role", "admin", 600, 3000, None),
        ("User", "a", 120, None, None),
        ("User", "b", 99_999, None, None),  # longer than the policy's: it has no effect
    )
    for session_id, user, tenant, role, used in (
        ("plain", "x", "shop", "guest", 1000),
        ("plain idle", "x", "shop", "guest", 2000),
        ("of the bank", "x", "bank", "guest", 400),
        ("of the bank, in use", "x", "bank", "guest", 200),
        ("of an admin", "x", "shop", "admin", 700),
        ("of an admin, in use", "x", "shop", "admin", 400),
        ("of a", "a", "shop", "guest", 150),
        ("of a, in use", "a", "bank", "admin", 60),
        ("of a, an admin", "a", "bank", "admin", 150),
        ("of b", "b", "shop", "guest", 1900),
        ("of A", "A", "shop", "guest", 1000),
        ("of nobody", None, None, None, 1000),
    ):
        add(database, session_id, user, tenant, role, used=used, began=2500)
    add(database, "of an admin, old", "x", "shop", "admin", used=10, began=3100)
    add(database, "of a guest, old", "x", "shop", "guest", used=10, began=3100)
    before = database.ids()
    result = run(policy(table=TABLE, maxConcurrentSessions=0, rules=[]), database.database_url)
    gone = {"plain idle", "of the bank", "of an admin", "of a", "of a, an admin", "of b", "of an admin, old"}
    assert before - database.ids() == gone
    assert (result.report.sessions.expired, result.deleted) == (7, 7)


# Rows grow older while a test is at it: what is to be live has a minute and a half left. Just over a limit is safe.
AGES = st.sampled_from([10, 100, 210, 310, 510, 610, 810, 910, 1500, 1900, 3000, 5000])
WHO = st.sampled_from(["p", "q", None])
NUMBERS = st.sampled_from([None, 0, -1, 300, 600, 900, 2400])
SUBJECTS = st.sampled_from(["p", "q", "r"])


@pytest.mark.representative(database_url=["sqlite"])
@configure(max_examples=at_most(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sessions=st.lists(st.tuples(WHO, WHO, WHO, AGES, AGES), max_size=12),
    rows=st.dictionaries(st.tuples(st.sampled_from(Scope), SUBJECTS), st.tuples(NUMBERS, NUMBERS), max_size=8),
    absolute=st.sampled_from([None, 1800, 4000]),
)
def test_r2_1_sql_agrees_with_the_model(
    scoped: SessionStores,
    sessions: list[tuple[str | None, str | None, str | None, int, int]],
    rows: dict[tuple[Scope, str], tuple[int | None, int | None]],
    absolute: int | None,
) -> None:
    scoped.sql("DELETE FROM sessions", "DELETE FROM session_settings")
    stored = {(s, "" if s is Scope.GLOBAL else subject): values for (s, subject), values in rows.items()}
    store(scoped, *((s.value, subject, *values, None) for (s, subject), values in stored.items()))
    live, filled, now = set(), [], datetime.now(UTC)
    for n, (user, tenant, role, used, began) in enumerate(sessions):
        times = {"created_at": now - timedelta(seconds=began), "last_accessed_at": now - timedelta(seconds=used)}
        filled.append({"session_id": f"s{n}", "user_id": user, "tenant": tenant, "role": role, **times})
        mine = {Scope.GLOBAL: "", Scope.TENANT: tenant, Scope.ROLE: role, Scope.USER: user}
        applying = [Setting(s, *values) for (s, subject), values in stored.items() if mine[s] == subject]
        lifetime, _ = effective(Lifetime(1800, absolute), 0, applying)
        if used <= lifetime.idle and (lifetime.absolute is None or began <= lifetime.absolute):
            live.add(f"s{n}")
    if filled:
        with scoped.engine.begin() as connection:
            connection.execute(SCOPED.insert(), filled)
    obeyed = policy(
        table=TABLE, maxConcurrentSessions=0, sessionTimeoutSeconds=1800, absoluteTimeoutSeconds=absolute, rules=[]
    )
    result = run(obeyed, scoped.database_url)
    assert scoped.ids() == live
    assert result.deleted == len(sessions) - len(live)


def test_r2_5_settings_narrow_the_limit_per_user(database: SessionStores) -> None:
    store(
        database,
        ("User", "a", None, None, 1),
        ("User", "b", None, None, 2),
        ("User", "c", None, None, 50),
        ("User", "d", None, None, 0),
        ("Tenant", "bank", 2**62, 2**62, 2**62),
        ("Global", "", 2**62, 2**62, 2**62),
    )
    database.add_many((f"{user}{n}", user) for user in "abcdA" for n in range(4))
    result = run(policy(maxConcurrentSessions=3, cleanupBatchSize=2, rules=[]), database.database_url)
    left = sorted(i[0] for i in database.ids())
    assert {user: left.count(user) for user in "abcdA"} == {"a": 1, "b": 2, "c": 3, "d": 3, "A": 3}
    assert (result.report.sessions.over_limit, result.report.sessions.evicted) == (8, 8)


def test_r2_5_a_limit_for_one_user_where_the_policy_has_none(database: SessionStores) -> None:
    store(database, ("User", "a", None, None, 1), ("User", "b", None, 2**62, 2**62))
    for user in "ab":
        for n in range(4):
            database.add(f"{user}{n}", user, used=10 * n)
    run(policy(maxConcurrentSessions=0, rules=[]), database.database_url)
    assert database.ids() == {"a0", "b0", "b1", "b2", "b3"}


def test_r2_5_the_smallest_limit_of_a_users_sessions_counts(database: SessionStores) -> None:
    add_columns(database)
    store(database, ("Role", "admin", None, None, 2), ("Tenant", "bank", None, None, 3))
    for n, (tenant, role) in enumerate([("bank", "guest"), ("bank", "admin"), ("shop", "guest"), ("shop", "guest")]):
        add(database, f"a{n}", "a", tenant, role, used=10 * n)
        add(database, f"b{n}", "b", tenant, "guest", used=10 * n)
    run(policy(table=TABLE, maxConcurrentSessions=10, rules=[]), database.database_url)
    assert database.ids() == {"a0", "a1", "b0", "b1", "b2"}


def test_r2_2_redis_is_asked_by_each_sessions_own_timeout(stores: SessionStores) -> None:
    """What Redis has seen in use is kept, but only as long as the setting lets it idle."""
    store(stores, ("User", "a", 300, None, None))
    for session_id, user, used in (("a1", "a", 100), ("a2", "a", 400), ("b1", "b", 400), ("b2", "b", 2000)):
        stores.add(session_id, user, used=HOUR)
        stores.add_key(session_id, user, used=used)
    stores.add("a3", "a", used=400)
    stores.add("b3", "b", used=400)
    result = run(policy(redis=True, rules=[]), stores.database_url, stores.redis_url)
    assert stores.ids() == {"a1", "b1", "b3"}
    assert (result.report.sessions.expired, result.deleted, result.report.sessions.active) == (3, 3, 3)
    # Nothing is counted twice in a dry run, where nothing goes.
    stores.add("a4", "a", used=HOUR)
    dry = run(policy(redis=True, rules=[]), stores.database_url, stores.redis_url, dry_run=True)
    assert dry.report.sessions.expired == 1


def test_r2_2_under_two_settings_a_session_idles_by_the_shorter_and_is_counted_once(stores: SessionStores) -> None:
    add_columns(stores)
    store(stores, ("User", "a", 300, None, None), ("Tenant", "bank", 600, None, None))
    for n, used in enumerate((100, 200, 400, 500)):
        add(stores, f"s{n}", "a", "bank", None, used=HOUR)
        stores.add_key(f"s{n}", "a", used=used)
    obeyed = policy(redis=True, table=TABLE, rules=[])
    for dry_run in (True, False):
        counts = run(obeyed, stores.database_url, stores.redis_url, dry_run=dry_run).report.sessions
        assert (counts.expired, counts.active) == (2, 2)
    assert stores.ids() == {"s0", "s1"}


def test_r2_1_thousands_of_settings_are_no_burden(database: SessionStores) -> None:
    store(database, *(("User", f"user{n}", 60 + n, None, 1 + n % 40) for n in range(3000)))
    database.add_many(((f"s{n}", f"user{n}") for n in range(0, 3000, 10)), used=900)
    database.add("of nobody known", "x", used=900)
    run(policy(rules=[]), database.database_url)
    left = {int(i[1:]) for i in database.ids() if i[1:].isdigit()}
    # Whose own timeout is longer than that stays; of the others, some may get a little more time than they should.
    assert {n for n in range(0, 3000, 10) if 60 + n >= 1100} <= left
    assert len(left & set(range(0, 700))) == 0
    assert "of nobody known" in database.ids()


def test_r2_9_settings_are_verified_and_nobody_is_named(database: SessionStores) -> None:
    store(
        database,
        ("Global", "", 900, 600, None),
        ("User", "canary-known", 0, None, None),
        ("User", "canary-unknown", 60, None, None),
        ("User", "Canary-Known", 60, None, None),
        ("Role", "canary-role", 60, None, None),
    )
    database.add("s", "canary-known")
    with steps(policy(), database) as opened:
        findings = verification.verify_settings(opened.context, opened.queries, opened.opened.settings)
    assert {(f.field, f.rows) for f in findings} == {
        ("Global.idle_timeout_seconds", 1),
        ("User.idle_timeout_seconds", 1),
        ("User.subject", 2),
        ("Role.subject", 1),
    }
    logged: list[dict[str, Any]] = opened.log.named("risky setting")
    assert len(logged) == len(findings)
    assert all(event["field"] and event["remedy"] for event in logged)
    assert "canary" not in repr(opened.log.events) + repr(findings) + repr(verification.settings_problems(findings))


def test_r2_9_a_run_alerts_and_ends_well(database: SessionStores) -> None:
    store(database, ("User", "a", 0, None, None), ("User", "b", -5, None, None))
    database.add_many([("s", "a"), ("t", "b")])
    report = run(policy(absoluteTimeoutSeconds=7200, rules=[]), database.database_url).report
    assert [(alert.reason, alert.count) for alert in report.alerts] == [("RiskySettings", 2)]
    assert report.outcome is Outcome.SUCCEEDED


def test_r2_9_without_settings_only_the_policy_is_judged(database: SessionStores) -> None:
    database.add("s")
    with steps(policy(absoluteTimeoutSeconds=7200), database) as opened:
        assert verification.verify_settings(opened.context, opened.queries, opened.opened.settings) == []
    with steps(policy(), database) as opened:
        (finding,) = verification.verify_settings(opened.context, opened.queries, opened.opened.settings)
    assert finding.field == "spec.absoluteTimeoutSeconds"


def test_times_are_the_stores_own(postgres: SessionStores) -> None:
    """A setting's cutoff counts from the same moment as the policy's."""
    store(postgres, ("User", "a", 600, None, None))
    with steps(policy(), postgres) as opened:
        assert list(opened.opened.database.expired_pages()) == []
        postgres.add("s", "a", used=700)
        (((candidate,)),) = opened.opened.database.expired_pages()
    cutoff = candidate.unused_since
    assert candidate.session.id == "s"
    assert cutoff
    assert cutoff == opened.opened.cutoffs.expiry - timedelta(seconds=600)
    assert abs((datetime.now(UTC) - cutoff).total_seconds() - 605) < 60
