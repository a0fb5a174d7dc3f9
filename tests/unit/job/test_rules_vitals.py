"""R5: findings from Redis' own numbers and from the rate of new sessions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.steps.thresholds import (
    CreationRate,
    RedisStats,
    creation_problems,
    parse_info,
    redis_problems,
    vitals_of_report,
)
from policy.alerts import Thresholds
from policy.report import Vitals

MIB = 2**20
DEFAULT = Thresholds()


def reasons(vitals: RedisStats, thresholds: Thresholds = DEFAULT) -> list[str]:
    return [problem.reason for problem in redis_problems(vitals, thresholds)]


@pytest.mark.parametrize(("memory", "found"), [(0, []), (1024 * MIB, []), (1024 * MIB + 1, ["RedisMemoryHigh"])])
def test_r5_redis_memory_over_a_gigabyte(memory: int, found: list[str]) -> None:
    assert reasons(RedisStats(memory, 0, 0)) == found
    assert reasons(RedisStats(memory, 0, 0), Thresholds(redis_memory_megabytes=0)) == []


@pytest.mark.parametrize(
    ("hits", "misses", "found"),
    [(0, 0, []), (9500, 500, []), (9499, 501, ["CacheHitRatioLow"]), (0, 10_000, ["CacheHitRatioLow"]), (1, 9, [])],
)
def test_r5_hit_ratio_under_95_percent(hits: int, misses: int, found: list[str]) -> None:
    assert reasons(RedisStats(0, hits, misses)) == found


@pytest.mark.parametrize(
    ("now", "before", "found"),
    [
        (CreationRate(2000, 100), CreationRate(1000, 100), False),
        (CreationRate(2001, 100), CreationRate(1000, 100), True),
        (CreationRate(2001, 200), CreationRate(1000, 100), False),  # it is the rate that counts
        (CreationRate(10, 1), CreationRate(1, 1), False),  # a handful is no wave
        (CreationRate(1000, 1), CreationRate(0, 100), False),
        (CreationRate(1000, 1), None, False),
        (None, CreationRate(1, 100), False),
    ],
)
def test_r5_creation_rate_more_than_doubled(now: CreationRate | None, before: CreationRate | None, found: bool) -> None:
    assert bool(list(creation_problems(now, before, DEFAULT))) is found
    assert not list(creation_problems(now, before, Thresholds(creation_rate_factor=0)))


def test_r5_what_is_measured_is_reported_and_nothing_else() -> None:
    assert vitals_of_report(None, None, None) is None
    assert vitals_of_report(RedisStats(5, 0, 0), None, None) == Vitals(redis_memory_bytes=5)
    assert vitals_of_report(RedisStats(5, 999, 0), None, None) == Vitals(redis_memory_bytes=5)  # too few look-ups
    assert vitals_of_report(RedisStats(5, 750, 250), None, None) == Vitals(redis_memory_bytes=5, redis_hit_ratio=0.75)
    assert vitals_of_report(None, CreationRate(30, 60), 7) == Vitals(created_per_hour=1800, average_session_seconds=7)


@given(st.integers(0, 2**70), st.integers(0, 2**70), st.integers(0, 2**70), st.integers(0, 2**70), st.floats(0, 1e9))
def test_r5_whatever_is_measured_can_be_reported(
    memory: int, hits: int, misses: int, created: int, lasted: float
) -> None:
    assert vitals_of_report(RedisStats(memory, hits, misses), CreationRate(created, lasted), None) is not None


@given(
    st.lists(st.dictionaries(st.sampled_from(["used_memory", "keyspace_hits", "x"]), st.integers(0, 10**9) | st.text()))
)
def test_nodes_are_added_up_whatever_they_say(infos: list[dict[str, object]]) -> None:
    vitals = parse_info(infos)
    numbers = [i["used_memory"] for i in infos if isinstance(i.get("used_memory"), int)]
    assert vitals.memory_bytes == sum(numbers)  # type: ignore[arg-type]
    assert vitals.hit_percent is None or 0 <= vitals.hit_percent <= 100
