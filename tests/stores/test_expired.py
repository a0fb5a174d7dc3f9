"""R2.2, R4.1: who has expired, in every way a table may say so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from policy.mapping import TimeEncoding
from policy.report import Outcome
from tests.support.runs import policy, run
from tests.support.session_stores import HOUR, SessionStores

DAY = 24 * HOUR


def test_r2_2_idle_sessions_go_and_others_stay(database: SessionStores) -> None:
    # Rows grow older while a busy machine is at it: no line that matters is nearer than a minute and a half.
    database.add("idle", used=2110)
    database.add("within-skew", used=2000)
    database.add("live", used=1700)
    safety = {"maxDeletePercent": 100, "clockSkewSeconds": 300}
    result = run(policy(safety=safety), database.database_url)
    assert database.ids() == {"within-skew", "live"}
    assert (result.report.outcome, result.report.reason, result.exit_code) == (Outcome.SUCCEEDED, "Completed", 0)
    counts = result.report.sessions
    assert (counts.expired, counts.deleted, counts.active, counts.remaining, counts.failed) == (1, 1, 2, 0, 0)


def test_r4_1_whichever_timeout_comes_first_ends_a_session(database: SessionStores) -> None:
    database.add("used-to-the-end", began=DAY + 10, used=1)
    database.add("idle", began=1900, used=1850)
    database.add("neither", began=DAY - 600, used=1)
    database.add("both", began=2 * DAY, used=2 * DAY)
    run(policy(absoluteTimeoutSeconds=DAY), database.database_url)
    assert database.ids() == {"neither"}


def test_r4_1_without_an_absolute_timeout_age_alone_ends_nothing(database: SessionStores) -> None:
    database.add("old", began=400 * DAY, used=1)
    run(policy(), database.database_url)
    assert database.ids() == {"old"}


def test_r4_2_a_profile_sets_both_timeouts(database: SessionStores) -> None:
    database.add("idle", began=700, used=620)
    database.add("old", began=1900, used=1)
    database.add("live", began=1700, used=500)
    run(policy(profile="Finance"), database.database_url)
    assert database.ids() == {"live"}


def test_r2_2_the_applications_own_expiry_counts_besides_and_null_means_never(database: SessionStores) -> None:
    database.add("ended", used=1, ends=-10)
    database.add("ends-soon", used=1, ends=600)
    database.add("never", used=1, ends=None)
    run(policy(), database.database_url)
    assert database.ids() == {"ends-soon", "never"}


def test_a_session_without_an_owner_expires_like_any_other(database: SessionStores) -> None:
    database.add("nobody-idle", user=None, used=HOUR)
    database.add("nobody-live", user=None, used=1)
    run(policy(), database.database_url)
    assert database.ids() == {"nobody-live"}
    assert database.history() == {}


# --- tables of an application's own ----------------------------------------------------------------------------------

BERLIN = ZoneInfo("Europe/Berlin")


def stored(moment: datetime, encoding: TimeEncoding, zone: ZoneInfo) -> Any:
    if encoding is TimeEncoding.EPOCH_SECONDS:
        return int(moment.timestamp())
    if encoding is TimeEncoding.EPOCH_MILLISECONDS:
        return int(moment.timestamp() * 1000)
    if encoding is TimeEncoding.JULIAN_DAY:
        return moment.timestamp() / 86400 + 2440587.5
    if encoding is TimeEncoding.NAIVE_TIMESTAMP:
        return moment.astimezone(zone).replace(tzinfo=None)
    return moment


TYPES: dict[TimeEncoding, sa.types.TypeEngine[Any]] = {
    TimeEncoding.EPOCH_SECONDS: sa.BigInteger(),
    TimeEncoding.EPOCH_MILLISECONDS: sa.BigInteger(),
    TimeEncoding.JULIAN_DAY: sa.Double(),
    TimeEncoding.NAIVE_TIMESTAMP: sa.DateTime(timezone=False),
    TimeEncoding.TIMESTAMP: sa.DateTime(timezone=True),
}


def own_table(encoding: TimeEncoding, id_type: sa.types.TypeEngine[Any] | None = None) -> sa.Table:
    kind = TYPES[encoding]
    return sa.Table(
        "Web Session",
        sa.MetaData(),
        sa.Column("select", id_type or sa.String(40), primary_key=True),
        sa.Column("Owner", sa.String(40)),
        sa.Column("born", kind),
        sa.Column("seen", kind),
        sa.Column("until", kind),
    )


def mapping(encoding: TimeEncoding, zone: str = "UTC") -> dict[str, Any]:
    def time(name: str) -> dict[str, str]:
        return {"name": name, "encoding": encoding.value, "timeZone": zone}

    return {
        "name": "Web Session",
        "columns": {
            "id": {"name": "select"},
            "userId": {"name": "Owner"},
            "createdAt": time("born"),
            "lastAccessedAt": time("seen"),
            "expiresAt": time("until"),
        },
    }


@pytest.mark.parametrize(
    ("encoding", "zone"), [*((e, "UTC") for e in TimeEncoding), (TimeEncoding.NAIVE_TIMESTAMP, "Europe/Berlin")]
)
def test_r3_4_every_encoding_of_time(database: SessionStores, encoding: TimeEncoding, zone: str) -> None:
    table, now = own_table(encoding), datetime.now(UTC)

    def ago(seconds: float) -> Any:
        return stored(now - timedelta(seconds=seconds), encoding, ZoneInfo(zone))

    cases = {
        "idle": (ago(DAY / 2), ago(1900), None),
        "old": (ago(DAY + 60), ago(10), None),
        "ended": (ago(60), ago(10), ago(60)),
        "live": (ago(DAY / 2), ago(1700), ago(-3600)),
        "unknown": (None, None, None),
        "only-began": (ago(60), None, None),
        "idle-but-says-later": (ago(60), ago(1900), ago(-3600)),
    }
    with database.engine.begin() as connection:
        table.create(connection)
        connection.execute(
            table.insert(),
            [{"select": i, "Owner": "u", "born": b, "seen": s, "until": u} for i, (b, s, u) in cases.items()],
        )
    obeyed = policy(table=mapping(encoding, zone), absoluteTimeoutSeconds=DAY)
    result = run(obeyed, database.database_url)
    with database.engine.begin() as connection:
        left = set(connection.scalars(sa.select(table.c.select)))
    # In the night the clocks are set back, a naive time may be judged up to an hour late, never early.
    assert {"live", "unknown", "only-began"} <= left
    if encoding is not TimeEncoding.NAIVE_TIMESTAMP or zone == "UTC" or not near_a_change(now):
        assert left == {"live", "unknown", "only-began"}
        assert result.deleted == 4
        assert run(obeyed, database.database_url).deleted == 0


def near_a_change(now: datetime) -> bool:
    offsets = {(now + timedelta(hours=h)).astimezone(BERLIN).utcoffset() for h in range(-48, 49)}
    return len(offsets) > 1


@pytest.mark.parametrize(
    ("kind", "ids"),
    [
        (sa.BigInteger(), [1, 2**40, -(2**62)]),
        (sa.Uuid(), None),
        (sa.Text(), ["a", "it's; DROP TABLE x --", "ünïcödé ✓ %s :x {id}"]),
    ],
    ids=["number", "uuid", "text"],
)
def test_r3_4_ids_of_every_type(postgres: SessionStores, kind: sa.types.TypeEngine[Any], ids: list[Any] | None) -> None:
    import uuid

    ids = ids or [uuid.uuid4() for _ in range(3)]
    table, now = own_table(TimeEncoding.TIMESTAMP, kind), datetime.now(UTC)
    with postgres.engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), [{"select": i, "seen": now - timedelta(days=1)} for i in ids[:2]])
        connection.execute(table.insert(), [{"select": ids[2], "seen": now}])
    result = run(policy(table=mapping(TimeEncoding.TIMESTAMP), cleanupBatchSize=1), postgres.database_url)
    assert (result.deleted, result.exit_code) == (2, 0)
    with postgres.engine.begin() as connection:
        assert list(connection.scalars(sa.select(table.c.select))) == [ids[2]]


def test_times_no_calendar_knows_stop_no_run(postgres: SessionStores) -> None:
    """PostgreSQL's infinity, and years that Python cannot tell."""
    postgres.add("plain", used=HOUR)
    postgres.sql(
        "INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at, expires_at) VALUES"
        " ('for-ever', 'u', '-infinity', 'infinity', 'infinity'),"
        " ('far', 'u', '20000-01-01', '20000-01-01', NULL),"
        " ('never-used', 'u', '-infinity', '-infinity', NULL),"
        " ('before-christ', 'u', '0100-01-01 BC', '0100-01-01 BC', NULL),"
        " ('ended', 'u', 'infinity', 'infinity', '-infinity')"
    )
    result = run(policy(), postgres.database_url)
    assert result.exit_code == 0, result.report
    assert postgres.ids() == {"for-ever", "far"}


def test_r3_1_sqlite_text_in_the_forms_applications_write(sqlite_url: str) -> None:
    stores = SessionStores(sqlite_url)
    now = datetime.now(UTC).replace(microsecond=0)
    old, new = now - timedelta(hours=2), now - timedelta(seconds=5)
    forms: dict[str, Callable[[datetime], str]] = {
        "iso": lambda t: t.isoformat(),
        "zulu": lambda t: t.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "space": lambda t: t.strftime("%Y-%m-%d %H:%M:%S"),
        "fraction": lambda t: t.strftime("%Y-%m-%d %H:%M:%S.123456"),
        "elsewhere": lambda t: t.astimezone(ZoneInfo("Asia/Kolkata")).isoformat(),
    }
    with stores.engine.begin() as connection:
        for name, write in forms.items():
            for age, moment in (("old", old), ("new", new)):
                connection.exec_driver_sql(
                    "INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at) VALUES (?, NULL, ?, ?)",
                    (f"{name}-{age}", write(moment), write(moment)),
                )
        for garbage in ("", "yesterday", "00000000", "\0"):
            connection.exec_driver_sql(
                "INSERT INTO sessions (session_id, created_at, last_accessed_at) VALUES (?, ?, ?)",
                (f"garbage {garbage}", garbage, garbage),
            )
    result = run(policy(), stores.database_url)
    assert result.exit_code == 0
    left = stores.ids()
    assert {i for i in left if not i.startswith("garbage")} == {f"{name}-new" for name in forms}
    assert len([i for i in left if i.startswith("garbage")]) == 4
    stores.close()


def test_r3_4_a_view_and_a_table_in_another_schema(postgres: SessionStores) -> None:
    postgres.sql(
        'CREATE SCHEMA "My Schema"',
        'CREATE TABLE "My Schema".sessions (LIKE public.sessions INCLUDING ALL)',
        "INSERT INTO \"My Schema\".sessions VALUES ('there', 'u', now() - interval '1 day', now() - interval '1 day')",
    )
    postgres.add("here", used=DAY)
    result = run(policy(table={"schema": "My Schema"}), postgres.database_url)
    assert (result.deleted, postgres.ids()) == (1, {"here"})


def test_r4_1_a_stored_setting_narrows_the_policy_and_never_widens_it(database: SessionStores) -> None:
    database.set_global(idle=600, absolute=7 * DAY)
    database.add("idle", used=700)
    database.add("old", began=DAY + 60, used=1)
    database.add("live", used=500)
    run(policy(absoluteTimeoutSeconds=DAY), database.database_url)
    assert database.ids() == {"live"}


def test_r2_5_a_stored_limit_narrows_the_policys(database: SessionStores) -> None:
    database.set_global(most=2)
    for n in range(4):
        database.add(f"s{n}", used=n * 10)
    run(policy(maxConcurrentSessions=3), database.database_url)
    assert database.ids() == {"s0", "s1"}


def test_r2_5_a_stored_limit_applies_where_the_policy_has_none(database: SessionStores) -> None:
    database.set_global(most=1)
    for n in range(3):
        database.add(f"s{n}", used=n * 10)
    run(policy(maxConcurrentSessions=0), database.database_url)
    assert database.ids() == {"s0"}


def test_r2_2_a_session_used_in_redis_since_is_live(stores: SessionStores) -> None:
    stores.add("in-use", used=HOUR)
    stores.add_key("in-use", used=5)
    stores.add("idle", used=HOUR)
    stores.add_key("idle", used=HOUR)
    stores.add("old", began=2 * DAY, used=HOUR)
    stores.add_key("old", used=5)
    result = run(policy(redis=True, absoluteTimeoutSeconds=DAY), stores.database_url, stores.redis_url)
    assert stores.ids() == {"in-use"}
    left = {k for k in stores.redis_keys() if k.startswith(("sess:", "access_log:"))}
    assert left == {"sess:in-use", "access_log:in-use"}
    assert stores.redis.smembers("user_sess:u") == {b"in-use"}
    counts = result.report.sessions
    assert (counts.expired, counts.deleted, counts.active) == (2, 2, 1)


def test_r2_2_many_expired_sessions_go_in_many_batches(database: SessionStores) -> None:
    database.add_many(((f"s{n:05}", f"u{n % 7}") for n in range(2500)), used=HOUR)
    database.add_many((f"live{n}", f"u{n}") for n in range(50))
    result = run(policy(cleanupBatchSize=300), database.database_url)
    assert result.deleted == 2500
    assert database.ids() == {f"live{n}" for n in range(50)}


@pytest.mark.representative(database_url=["sqlite"])
def test_a_batch_as_large_as_the_policy_may_ask_for(database: SessionStores) -> None:
    database.add_many(((f"s{n:06}", "u") for n in range(40_000)), used=HOUR)
    result = run(policy(cleanupBatchSize=50_000), database.database_url)
    assert (result.exit_code, result.deleted, database.ids()) == (0, 40_000, set())
