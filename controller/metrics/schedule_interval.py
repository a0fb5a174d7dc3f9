"""How long a policy may go without a run: for metrics only, the API server alone judges what a schedule may be."""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import date, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Final

from croniter import croniter

_FIELDS: Final = 5
_DAY_SECONDS: Final = 86_400
# Begins with a leap year and ends after the next: every day that a schedule can name comes up, the rarest twice.
_FIRST_DAY: Final = date(2024, 1, 1)
_DAYS: Final = 5 * 366


@lru_cache(maxsize=1024)
def longest_interval_seconds(schedule: str) -> int | None:
    """The longest time between two starts; None if the schedule cannot be read, or starts at most once.

    Of a schedule for weekdays it is the weekend, of one for the last of February four years: after that long without a
    run, one has been missed. By the clock on the wall: the night in which clocks are put back makes one hour more.
    """
    if len(schedule.split()) != _FIELDS:
        return None
    try:
        minutes, hours, *date_fields = croniter.expand(schedule)[0]
        allowed = [frozenset(n for n in field if n != "*") for field in date_fields]
        if any(not isinstance(n, int) for field in allowed for n in field):
            return None  # "the last day" and the like, which CronJobs do not know
    except ValueError:
        return None
    clock = sorted(
        3600 * hour + 60 * minute for hour in _values(hours, range(24)) for minute in _values(minutes, range(60))
    )
    days = [number for number in range(_DAYS) if _is_due(_FIRST_DAY + timedelta(number), *allowed)]
    between_days = [(later - earlier) * _DAY_SECONDS - (clock[-1] - clock[0]) for earlier, later in pairwise(days)]
    if not between_days:
        return None
    within_a_day = [later - earlier for earlier, later in pairwise(clock)]
    return max(between_days + within_a_day)


def _values(field: Sequence[object], every: range) -> list[int]:
    return [*every] if "*" in field else [n for n in field if isinstance(n, int)]


def _is_due(day: date, days: Set[object], months: Set[object], weekdays: Set[object]) -> bool:
    """Whether the schedule has starts on this day; an empty set allows any."""
    if months and day.month not in months:
        return False
    on_day, on_weekday = day.day in days, day.isoweekday() % 7 in weekdays
    if days and weekdays:
        return on_day or on_weekday  # cron's own rule
    return (on_day or not days) and (on_weekday or not weekdays)
