"""RequestBurst: a session that is used more often than a person would."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from policy.rules import SessionRule
from stores.rules.defaults import count, within_seconds
from stores.rules.facts import Facts, Survey


def bursts_requests(rule: SessionRule, facts: Facts, _survey: Survey, _now: datetime) -> bool:
    """Whether more accesses than are normal lie within the time looked at."""
    if len(facts.accesses) <= count(rule):
        return False
    times = (access.at for access in facts.accesses if access.at)
    return has_burst(times, count(rule), timedelta(seconds=within_seconds(rule)))


def has_burst(times: Iterable[datetime], normal: int, within: timedelta) -> bool:
    """Whether any stretch of this length, its ends included, holds more than the normal number of times."""
    ordered = sorted(times)
    return any(later - earlier <= within for earlier, later in zip(ordered, ordered[normal:], strict=False))
