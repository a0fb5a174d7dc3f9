"""R2.3, R5: how sessions are used, in numbers; and what is kept of it for reports."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from job.steps import active, measurements
from stores.sql.queries import ClientUsage
from stores.sql.schema.tables import statistics, usage
from tests.support.runs import policy
from tests.support.session_stores import HOUR, SessionStores
from tests.support.steps import Steps, steps

# `make test` tests the SQL of the other databases in few modules, and `make test-all` everywhere.
pytestmark = pytest.mark.representative(database_url=["sqlite"])

CHROME = "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{} Safari/537.36"


def kept(stores: SessionStores) -> list[tuple[Any, ...]]:
    with stores.engine.begin() as connection:
        return [tuple(row) for row in connection.execute(sa.select(usage).order_by(usage.c.client))]


def this_hour() -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def fill(stores: SessionStores) -> None:
    # What is filled in one hour must not be counted in the next one.
    if (left := HOUR - time.time() % HOUR) < 60:
        time.sleep(left)
    now, hour = datetime.now(UTC), this_hour()
    before = hour - timedelta(seconds=1)
    rows: list[tuple[Any, ...]] = [(f"c{n}", "a", CHROME.format(n), hour, now) for n in range(3)]
    rows += [("old", "b", "curl/8", before, now), ("none", None, None, before, now)]
    rows += [("expired", "c", "curl/8", now - timedelta(hours=9), now - timedelta(hours=8))]
    fields = ("session_id", "user_id", "client", "created_at", "last_accessed_at")
    stores.rows(dict(zip(fields, row, strict=True)) for row in rows)


def test_r2_3_usage_by_client_user_and_hour(database: SessionStores) -> None:
    fill(database)
    with steps(policy(), database) as run:
        found = active.report_usage(run.context, run.queries, run.opened.connection, run.overview)
    assert found.clients == [
        ClientUsage("Chrome", 3, 3, 3),
        ClientUsage("Program", 1, 0, 1),
        ClientUsage("Unknown", 1, 0, 1),
    ]
    assert (found.users, found.most) == (2, 3)
    assert found.by_sessions is not None
    assert {n: c for n, c in found.by_sessions.items() if c} == {1: 1, 2: 1}
    hour = this_hour()
    assert found.begun_by_hour is not None
    by_hour = {h: n for h, n in found.begun_by_hour.items() if n}
    assert by_hour == {hour.hour: 3, (hour - timedelta(hours=1)).hour: 2}
    assert found.ages is not None
    assert sum(found.ages.values()) == 5


def test_r2_3_ages_of_sessions(database: SessionStores) -> None:
    for n, began in enumerate([0, 10, 200, 400, 2000, 4000, 90_000, 90_000, 10**7]):
        database.add(f"s{n}", began=began)
    with steps(policy(), database) as run:
        ages = active.report_usage(run.context, run.queries, None, run.overview).ages
    assert ages == {0: 3, 300: 1, 1800: 1, 3600: 1, 4 * 3600: 0, 86_400: 2, 7 * 86_400: 0, 30 * 86_400: 1}


def test_r2_3_the_hours_usage_is_kept_once_and_for_as_long_as_the_policy_says(database: SessionStores) -> None:
    fill(database)
    old = datetime.now(UTC).date() - timedelta(days=40)
    with database.engine.begin() as connection:
        for day, name in (
            (old, "web/shop"),
            (old + timedelta(days=20), "web/shop"),
            (this_hour().date(), "web/other"),
            (old, "web/another"),
        ):
            row = {"policy": name, "day": day, "hour": this_hour().hour, "client": "Chrome"}
            connection.execute(usage.insert().values(**row, active=9, begun=9, used=9))
    obeyed = policy(statistics={"retentionDays": 30})
    for _ in range(2):
        with steps(obeyed, database) as run:
            active.report_usage(run.context, run.queries, run.opened.connection, run.overview)
    rows = kept(database)
    today = [row for row in rows if row[0] == "web/shop" and row[1] == this_hour().date()]
    assert [row[3:] for row in today] == [("Chrome", 3, 3, 3), ("Program", 1, 0, 1), ("Unknown", 1, 0, 1)]
    # The one that is too old has gone, but not that of another policy, which may keep its own for longer.
    assert len(rows) == len(today) + 3


def test_r2_3_a_dry_run_keeps_nothing(database: SessionStores) -> None:
    fill(database)
    before = database.dump()
    with steps(policy(), database, dry_run=True) as run:
        active.report_usage(run.context, run.queries, run.opened.connection, run.overview)
    assert database.dump() == before


def test_r2_3_the_log_holds_sums_and_nothing_personal(database: SessionStores) -> None:
    database.rows([{"session_id": "canary-session", "user_id": "canary-user", "client": "canary-client/1"}])
    with steps(policy(), database) as run:
        active.report_usage(run.context, run.queries, run.opened.connection, run.overview)
    (event,) = run.log.named("session usage")
    assert event["clients"] == {"Other": 1}
    assert "canary" not in repr(run.log.events)
    assert "canary" not in repr(kept(database))


def test_r2_3_what_is_not_mapped_is_not_known(database: SessionStores) -> None:
    fill(database)
    table = {"name": "sessions", "columns": {"id": {"name": "session_id"}, "expiresAt": {"name": "expires_at"}}}
    with steps(policy(table=table), database) as run:
        found = active.report_usage(run.context, run.queries, run.opened.connection, run.overview)
    assert (found.by_sessions, found.ages, found.begun_by_hour) == (None, None, None)
    assert found.clients == [ClientUsage("Unknown", 6, 0, 0)]


# --- measurements ---


def measured_by(run: Steps, *, with_statistics: bool = True) -> measurements.Measurements:
    previous = measurements.previous_runs(run.context, run.opened.connection if with_statistics else None, "this")
    return measurements.measure(run.context, previous, run.look(*(each.started for each in previous[:1])))


def ran(stores: SessionStores, run_id: str, seconds_ago: float, created: int | None) -> None:
    started = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    counts = dict.fromkeys(("active", "active_users", "expired", "over_limit", "evicted", "deleted", "failed"), 0)
    row = {"run_id": run_id, "policy": "web/shop", "started_at": started, "completed_at": started}
    with stores.engine.begin() as connection:
        connection.execute(
            statistics.insert().values(**row, outcome="Succeeded", created=created, remaining=0, **counts)
        )


@pytest.mark.parametrize(("created", "found"), [(60, []), (30, []), (25, ["CreationRateHigh"]), (None, [])])
def test_r5_creation_rate_against_the_run_before(
    database: SessionStores, created: int | None, found: list[str]
) -> None:
    """59 sessions in the last hour; the run before counted some in the hour before that."""
    ran(database, "first", 2 * HOUR, None)
    ran(database, "second", HOUR, created)
    ran(database, "this", 1, 10**6)  # left by an earlier attempt
    database.add_many(((f"s{n}", "u") for n in range(50)), began=600)
    database.add_many(((f"gone{n}", "u") for n in range(9)), began=600, used=7200)  # expired, but created all the same
    database.add_many(((f"old{n}", "u") for n in range(99)), began=2 * HOUR)
    with steps(policy(), database) as run:
        measured = measured_by(run)
    assert measured.creation is not None
    assert measured.creation.sessions == 59
    assert measured.creation.seconds == pytest.approx(HOUR, abs=300)  # however long the machine takes
    assert [p.reason for p in measured.problems] == found
    assert measured.redis is None


def test_r5_the_first_run_has_nothing_to_compare_with(database: SessionStores) -> None:
    database.add("s")
    with steps(policy(), database) as run:
        assert measured_by(run).problems == ()
        assert measured_by(run, with_statistics=False).creation is None


def test_r5_redis_memory_and_hit_ratio(stores: SessionStores) -> None:
    stores.redis.config_resetstat()
    stores.redis.set("there", "x")
    with stores.redis.pipeline() as pipeline:
        for n in range(2000):
            pipeline.get("there" if n % 2 else "not there")
        pipeline.execute()
    thresholds = {"redisMemoryMegabytes": 1, "cacheHitPercent": 60}
    stores.redis.set("large", "x" * 2**21)
    with steps(policy(redis=True, alerts={"thresholds": thresholds}), stores) as run:
        measured = measured_by(run)
        assert measured.redis is not None
        assert measured.redis.memory_bytes > 2**21
        assert measured.redis.hit_percent == pytest.approx(50, abs=2)
        assert [p.reason for p in measured.problems] == ["RedisMemoryHigh", "CacheHitRatioLow"]
    with steps(policy(redis=True, alerts={"thresholds": {"cacheHitPercent": 40}}), stores) as run:
        assert measured_by(run).problems == ()
