"""The numbers of a rule that the policy leaves out."""

from __future__ import annotations

from policy.rules import RuleType, SessionRule

_AFTER_SECONDS = 86_400
_MIN_BITS = 128
_KILOMETERS = 1000
_WITHIN_SECONDS = {RuleType.IMPOSSIBLE_TRAVEL: 3600}
_BURST_SECONDS = 60
_COUNT = {RuleType.LOGIN_BURST: 20}
_REQUESTS = 600


def after_seconds(rule: SessionRule) -> int:
    """LongRunning: how long a session may go on."""
    return rule.after_seconds or _AFTER_SECONDS


def min_bits(rule: SessionRule) -> int:
    """WeakId: the fewest bits an id may have."""
    return rule.min_bits or _MIN_BITS


def kilometers(rule: SessionRule) -> int:
    """ImpossibleTravel: how far apart two places may be."""
    return rule.kilometers or _KILOMETERS


def within_seconds(rule: SessionRule) -> int:
    """ImpossibleTravel, RequestBurst, LoginBurst: the time looked at."""
    return rule.within_seconds or _WITHIN_SECONDS.get(rule.type, _BURST_SECONDS)


def count(rule: SessionRule) -> int:
    """RequestBurst, LoginBurst: how often within that time is still normal."""
    return rule.count or _COUNT.get(rule.type, _REQUESTS)
