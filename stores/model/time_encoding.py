"""Points in time as stores write them, and how a bound must be written so that no live session falls below it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from policy.mapping import TimeEncoding

_JULIAN_DAY_OF_EPOCH = 2440587.5
_SECONDS_PER_DAY = 86400

# Zones change their offset on quarter hours of UTC, and by less than this.
_QUARTER_HOUR = timedelta(minutes=15)
_LARGEST_SHIFT = timedelta(hours=3)


_OFFSET = re.compile(r"(?P<sign>[+-])(?P<hours>\d{1,2}):(?P<minutes>\d{2})")


def zone_of(name: str) -> tzinfo:
    """The time zone of a name: IANA's, or an offset such as +02:00.

    Raises:
        ValueError: there is no such zone.
    """
    if match := _OFFSET.fullmatch(name):
        offset = timedelta(hours=int(match["hours"]), minutes=int(match["minutes"]))
        return timezone(-offset if match["sign"] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not an IANA time zone") from None


def decode_time(value: Any, encoding: TimeEncoding, zone: tzinfo = UTC) -> datetime | None:
    """The point in time that a stored value means; None where it means none.

    Args:
        value: as the driver returned it: datetime, number, or text.
        encoding: how the value is written.
        zone: the zone of a time written without one.
    """
    try:
        if encoding is TimeEncoding.EPOCH_SECONDS:
            return datetime.fromtimestamp(_number(value), UTC)
        if encoding is TimeEncoding.EPOCH_MILLISECONDS:
            return datetime.fromtimestamp(_number(value) / 1000, UTC)
        if encoding is TimeEncoding.JULIAN_DAY:
            return datetime.fromtimestamp((_number(value) - _JULIAN_DAY_OF_EPOCH) * _SECONDS_PER_DAY, UTC)
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        # Most are, and to convert such a one takes as long as all the rest.
        return moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _number(value: Any) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str | bytes):
        raise TypeError("not a number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def encode_bound(moment: datetime, encoding: TimeEncoding, zone: tzinfo = UTC) -> datetime | float | int:
    """How to write an upper bound: a stored time that is *less* lies before the moment, for certain.

    Stores round and cut fractions of a second, and where clocks are set back the same local time comes twice. The bound
    errs towards keeping a session: with ``column < encode_bound(t)`` no session of the time t or later is ever found,
    while one that is older may, for up to an hour of one night in autumn, be found a little later.
    """
    whole = moment.astimezone(UTC).replace(microsecond=0)
    if encoding is TimeEncoding.EPOCH_SECONDS:
        return int(whole.timestamp())
    if encoding is TimeEncoding.EPOCH_MILLISECONDS:
        return int(whole.timestamp()) * 1000
    if encoding is TimeEncoding.JULIAN_DAY:
        # A second less: the last digits of a day number differ with the way it was computed.
        return (whole.timestamp() - 1) / _SECONDS_PER_DAY + _JULIAN_DAY_OF_EPOCH
    if encoding is TimeEncoding.TIMESTAMP:
        return whole
    return min(later.astimezone(zone).replace(tzinfo=None) for later in _from(whole))


def _from(moment: datetime) -> Iterator[datetime]:
    """The moment, and the later ones at which a zone's local time might have jumped back below it."""
    yield moment
    step = moment.replace(minute=moment.minute - moment.minute % 15, second=0) + _QUARTER_HOUR
    while step <= moment + _LARGEST_SHIFT:
        yield step
        step += _QUARTER_HOUR
