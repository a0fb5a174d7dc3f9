"""Times as text in the logs of single sessions: in UTC, to the second. A run may format millions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache

_MICROSECONDS_PER_SECOND = 1_000_000
_SECONDS_PER_HOUR = 3600
_MICROSECONDS_PER_HOUR = _SECONDS_PER_HOUR * _MICROSECONDS_PER_SECOND
# More than a year of them.
_HOURS_KEPT = 10_000


def format_utc(moment: datetime) -> str:
    """A time as text, such as ``2026-11-20T22:00:00Z``."""
    in_utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    # Cut by hand, which is faster than to have the fraction left out.
    return in_utc.isoformat()[:19] + "Z"


@cache
def utc_formatter(epoch: datetime) -> Callable[[int], str | None]:
    """Formats times given in microseconds since an epoch; None for those outside the calendar.

    Most sessions of a batch share few hours, and an hour has 3,600 seconds: each text is made once.

    Args:
        epoch: in UTC, on the full hour.
    """

    @lru_cache(maxsize=_HOURS_KEPT)
    def hour_of(hours: int) -> str | None:
        try:
            return format_utc(epoch + timedelta(hours=hours))[:13]
        except OverflowError:
            return None

    rest = _within_hour()

    def format_microseconds(microseconds: int) -> str | None:
        hours, within = divmod(microseconds, _MICROSECONDS_PER_HOUR)
        hour = hour_of(hours)
        return None if hour is None else hour + rest[within // _MICROSECONDS_PER_SECOND]

    return format_microseconds


@cache
def _within_hour() -> tuple[str, ...]:
    return tuple(f":{second // 60:02}:{second % 60:02}Z" for second in range(_SECONDS_PER_HOUR))
