"""R5: what a run measures of the stores is in its report, for status and metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from job.run import Run
from job.steps.initialise import Urls
from policy.report import Outcome, RunReport
from stores.redis.connection.permissions import PERMISSIONS, WITHOUT_DATABASE
from stores.waiting.clock import RunClock
from tests.stores.test_redis_acl import PATTERNS, user
from tests.support.redis_only import HOUR, RedisOnly
from tests.support.runs import Log, policy, run
from tests.support.session_stores import SessionStores

# What these tests look at is the same in every database.
pytestmark = pytest.mark.representative(database_url=["sqlite"])


def test_r5_memory_rate_and_duration_are_reported(stores: SessionStores) -> None:
    stores.add("short", "a", began=2 * HOUR, used=2 * HOUR - 100)
    stores.add("long", "b", began=2 * HOUR, used=2 * HOUR - 300)
    stores.add("live")
    first = run(policy(redis=True), stores.database_url, stores.redis_url, run_id="first").report
    assert first.sessions.deleted == 2
    assert first.vitals is not None
    assert first.vitals.redis_memory_bytes == pytest.approx(stores.redis.info("memory")["used_memory"], rel=0.5)
    assert first.vitals.average_session_seconds == 200
    assert first.vitals.created_per_hour is None  # there is no run before
    stores.add_many(((f"new-{n}", f"u{n}") for n in range(10)), began=0, used=0)
    second = run(policy(redis=True), stores.database_url, stores.redis_url, run_id="second").report
    assert second.vitals is not None
    assert second.vitals.created_per_hour is not None
    assert second.vitals.created_per_hour > 10
    assert second.vitals.average_session_seconds is None  # nothing was deleted


def test_r5_the_database_alone_has_no_vitals_of_redis(database: SessionStores) -> None:
    database.add("gone", began=2 * HOUR, used=HOUR)
    vitals = run(policy(), database.database_url).report.vitals
    assert vitals is not None
    assert vitals.average_session_seconds == HOUR
    assert vitals.redis_memory_bytes is None
    assert vitals.redis_hit_ratio is None


@pytest.fixture
def world(redis_url: str) -> Iterator[RedisOnly]:
    one = RedisOnly(redis_url)
    one.client.flushdb()
    yield one
    one.close()


def report_of(world: RedisOnly, url: str, **spec: Any) -> RunReport:
    report, _ = Run(world.policy(**spec), Urls(None, url), "run", RunClock(600), Log()).execute()
    return report


def test_r5_redis_without_a_database_is_measured_too(world: RedisOnly) -> None:
    world.add("gone", began=2 * HOUR, used=HOUR)
    world.client.set("large", "x" * 2**21)
    report = report_of(world, world.url, alerts={"thresholds": {"redisMemoryMegabytes": 1, "cacheHitPercent": 0}})
    assert report.vitals is not None
    assert (report.vitals.redis_memory_bytes or 0) > 2**21
    assert report.vitals.average_session_seconds == HOUR
    assert [alert.reason for alert in report.alerts] == ["RedisMemoryHigh"]


def test_without_a_database_the_right_to_ask_is_not_needed(world: RedisOnly) -> None:
    with user(world.url, *PATTERNS, *PERMISSIONS, *WITHOUT_DATABASE) as url:
        report = report_of(world, url)
    assert report.outcome is Outcome.SUCCEEDED, report
    assert report.vitals is None
