"""R6: dry run, the share one run may delete, and clocks that differ."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import job.steps.initialise
from policy.report import Outcome
from stores.redis.store import RedisStore
from tests.support.runs import policy, run
from tests.support.session_stores import HOUR, SessionStores

# What these tests look at is the same in every database.
pytestmark = pytest.mark.representative(database_url=["sqlite"])


def fill(stores: SessionStores) -> None:
    stores.add_many(((f"e{n}", f"u{n % 2}") for n in range(12)), used=HOUR)
    stores.add_many((f"l{n}", "u0") for n in range(8))


def test_r6_a_dry_run_finds_everything_and_changes_nothing(stores: SessionStores) -> None:
    fill(stores)
    for n in range(8):
        stores.add_key(f"l{n}", "u0", ttl=None if n == 0 else HOUR)
    stores.add_key("e0", "u0", used=HOUR)
    stores.add_key("orphan", "u9")
    stores.redis.sadd("user_sess:u0", "stale")
    # Statistics that are due to be forgotten, too.
    stores.sql(
        "INSERT INTO session_statistics (run_id, policy, started_at, completed_at, outcome, active, active_users,"
        " expired, over_limit, evicted, deleted, failed, remaining) VALUES ('old', 'p', '2001-01-01', '2001-01-01',"
        " 'Succeeded', 0, 0, 0, 0, 0, 0, 0, 0)"
    )
    before = stores.dump()
    for dry in ({"dryRun": True}, {}):
        obeyed = policy(redis=True, maxConcurrentSessions=5, **dry)
        result = run(obeyed, stores.database_url, stores.redis_url, dry_run=not dry)
        assert stores.dump() == before
        report = result.report
        assert (report.outcome, report.reason, report.dry_run, result.exit_code) == (
            Outcome.SUCCEEDED,
            "DryRun",
            True,
            0,
        )
        counts = report.sessions
        assert (counts.expired, counts.over_limit, counts.deleted, counts.evicted) == (12, 3, 0, 0)
        assert (counts.active, counts.remaining, counts.failed) == (8, 0, 0)
        assert report.redis is not None
        assert (report.redis.orphaned, report.redis.deleted, report.redis.ttl_added) == (1, 0, 0)
        assert report.redis.index_entries_removed == 0
    # And a real run does what the dry run has found.
    real = run(policy(redis=True, maxConcurrentSessions=5), stores.database_url, stores.redis_url).report
    assert (real.sessions.expired, real.sessions.evicted, real.sessions.deleted) == (12, 3, 15)
    assert stores.dump() != before


def test_r6_more_than_the_share_and_nothing_at_all_is_deleted(database: SessionStores) -> None:
    fill(database)
    before = database.dump()
    obeyed = policy(safety={"maxDeletePercent": 59, "alwaysAllowedDeletions": 11})
    result = run(obeyed, database.database_url)
    assert database.dump() == before
    report = result.report
    assert (report.outcome, report.reason, result.exit_code) == (Outcome.FAILED, "SafetyLimitExceeded", 2)
    assert "maxDeletePercent" in report.message
    assert report.sessions.deleted == 0


@pytest.mark.parametrize("safety", [{"maxDeletePercent": 60, "alwaysAllowedDeletions": 0}, {"maxDeletePercent": 1}])
def test_r6_the_very_share_and_a_few_are_allowed(database: SessionStores, safety: dict[str, int]) -> None:
    fill(database)
    result = run(policy(safety=safety), database.database_url)
    assert (result.report.outcome, result.deleted) == (Outcome.SUCCEEDED, 12)


def test_r6_evictions_count_in_the_share_and_reports_do_not(database: SessionStores) -> None:
    database.add_many((f"s{n}", "u") for n in range(10))
    safety = {"maxDeletePercent": 50, "alwaysAllowedDeletions": 0}
    refused = run(policy(maxConcurrentSessions=4, safety=safety), database.database_url)
    assert (refused.exit_code, len(database.ids())) == (2, 10)
    reported = run(
        policy(maxConcurrentSessions=4, safety=safety, concurrency={"onExceed": "Report"}), database.database_url
    )
    assert (reported.exit_code, reported.report.sessions.over_limit) == (0, 6)


def test_r6_a_dry_run_shows_what_the_share_would_refuse(database: SessionStores) -> None:
    fill(database)
    before = database.dump()
    result = run(
        policy(safety={"maxDeletePercent": 1, "alwaysAllowedDeletions": 0}), database.database_url, dry_run=True
    )
    assert database.dump() == before
    assert (result.exit_code, result.report.reason, result.report.sessions.expired) == (0, "DryRun", 12)
    assert [w for w in result.log.named("safety limit exceeded") if w["level"] == "warning"]
    assert "maxDeletePercent" in result.report.message


def test_r6_sessions_that_redis_saw_in_use_do_not_count_in_the_share(stores: SessionStores) -> None:
    stores.add_many(((f"s{n}", "u") for n in range(9)), used=HOUR)
    for n in range(9):
        stores.add_key(f"s{n}", "u", used=5)
    stores.add("idle", used=HOUR)
    obeyed = policy(redis=True, safety={"maxDeletePercent": 10, "alwaysAllowedDeletions": 0})
    result = run(obeyed, stores.database_url, stores.redis_url)
    assert result.exit_code == 0, result.report
    assert stores.ids() == {f"s{n}" for n in range(9)}
    counts = result.report.sessions
    assert (counts.expired, counts.deleted, counts.active, counts.remaining) == (1, 1, 9, 0)


# A server's clock cannot be set here: what its clock says is changed where the answer comes in.


@pytest.mark.parametrize("ahead", [-60, 60])
def test_r6_a_database_clock_that_differs_stops_the_run(
    database: SessionStores, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    before = database.dump()
    monkeypatch.setattr(job.steps.initialise, "clock_offset", lambda _: timedelta(seconds=ahead))
    result = run(policy(), database.database_url)
    assert database.dump() == before
    assert (result.report.outcome, result.report.reason, result.exit_code) == (Outcome.FAILED, "ClockSkew", 1)
    assert "clockSkewSeconds" in result.report.message


@pytest.mark.parametrize("ahead", [-60, 60])
def test_r6_a_redis_clock_that_differs_stops_the_run(
    stores: SessionStores, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(stores)
    before = stores.dump()
    monkeypatch.setattr(RedisStore, "server_time", lambda _: datetime.now(UTC) + timedelta(seconds=ahead))
    result = run(policy(redis=True), stores.database_url, stores.redis_url)
    assert stores.dump() == before
    assert (result.report.reason, result.exit_code) == ("ClockSkew", 1)
    assert "Redis" in result.report.message


def test_r6_within_the_limit_the_stores_own_clock_decides(
    postgres: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.add("a", used=2300)
    postgres.add("b", used=2095)
    # The database's clock is minutes behind the container's: by its own, `a` was used 2010 s ago.
    monkeypatch.setattr(job.steps.initialise, "clock_offset", lambda _: timedelta(seconds=-290))
    safety = {"maxDeletePercent": 100, "clockSkewSeconds": 300}
    run(policy(safety=safety), postgres.database_url)
    assert postgres.ids() == {"a", "b"}
    run(policy(safety=safety, sessionTimeoutSeconds=1600), postgres.database_url)
    assert postgres.ids() == {"b"}
