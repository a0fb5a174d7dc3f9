"""Lengths of time as people say them."""

from __future__ import annotations

from datetime import timedelta

_MINUTE = timedelta(minutes=1)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


def spoken(length: timedelta) -> str:
    """The length, cut, not rounded: ``45 s``, ``47 min``, ``3 h``, ``3 days``."""
    if length < _MINUTE:
        return f"{max(0, int(length.total_seconds()))} s"
    if length < _HOUR:
        return f"{length // _MINUTE} min"
    if length < 2 * _DAY:
        return f"{length // _HOUR} h"
    return f"{length // _DAY} days"


def spoken_exactly(length: timedelta) -> str:
    """The same with minutes beside the hours, for what lies close to a limit: ``24 h 10 min``."""
    minutes = length % _HOUR // _MINUTE
    return f"{spoken(length)} {minutes} min" if _HOUR <= length < 2 * _DAY and minutes else spoken(length)
