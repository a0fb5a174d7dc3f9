"""The longest time without a scheduled start."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st

from controller.metrics.schedule_interval import longest_interval_seconds

HOUR = 3600
DAY = 24 * HOUR


@pytest.mark.parametrize(
    ("schedule", "seconds"),
    [
        ("50 * * * *", HOUR),
        ("*/7 * * * *", 420),
        ("0 3 * * *", DAY),
        ("59 23,0 * * *", 23 * HOUR),
        ("0 3 * * 1-5", 3 * DAY),
        ("*/5 9-17 * * 1-5", 2 * DAY + 15 * HOUR + 300),
        ("0 0 * * 7", 7 * DAY),
        ("0 0 ? * SUN", 7 * DAY),
        ("0 0 1 * *", 31 * DAY),
        ("0 0 1 * 1", 7 * DAY),  # either will do
        ("0 0 31 1 *", 366 * DAY),
        ("0 0 29 2 *", 1461 * DAY),
    ],
)
def test_the_longest_gap(schedule: str, seconds: int) -> None:
    assert longest_interval_seconds(schedule) == seconds


@pytest.mark.parametrize("schedule", ["", "often", "@hourly", "0 0 0 * * *", "99 * * * *", "0 0 L * *", "0 0 30 2 *"])
def test_none_for_what_cannot_be_read_or_never_comes(schedule: str) -> None:
    assert longest_interval_seconds(schedule) is None


def fields(lowest: int, highest: int) -> st.SearchStrategy[str]:
    number = st.integers(lowest, highest)
    return st.one_of(
        st.just("*"),
        number.map(str),
        st.lists(number, min_size=1, max_size=4).map(lambda found: ",".join(map(str, found))),
        st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}"),
    )


@given(
    st.tuples(fields(0, 59), fields(0, 23), fields(1, 28), fields(1, 12), fields(0, 6)).map(" ".join),
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),
)
def test_no_two_starts_are_further_apart(schedule: str, begin: datetime) -> None:
    ticks = croniter(schedule, begin, ret_type=datetime)
    gaps = [later - earlier for earlier, later in pairwise(ticks.get_next() for _ in range(20))]
    longest = longest_interval_seconds(schedule)
    assert longest is not None
    assert max(gaps) <= timedelta(seconds=longest)


@given(st.tuples(fields(0, 59), fields(0, 23), st.just("*"), st.just("*"), fields(0, 6)).map(" ".join))
def test_it_does_come_to_that_within_a_fortnight(schedule: str) -> None:
    begin = datetime(2026, 3, 1) - timedelta(seconds=1)
    ticks = croniter(schedule, begin, ret_type=datetime)
    seen = [ticks.get_next()]
    while seen[-1] < begin + timedelta(days=15):
        seen.append(ticks.get_next())
    longest = longest_interval_seconds(schedule)
    assert longest == max(later - earlier for earlier, later in pairwise(seen)).total_seconds()
