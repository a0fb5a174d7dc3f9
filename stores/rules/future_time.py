"""FutureTime: a session that began, or was used, in the future. No timeout would ever end it."""

from __future__ import annotations

from datetime import datetime

from policy.rules import SessionRule
from stores.rules.facts import Facts, Survey


def is_in_the_future(_rule: SessionRule, facts: Facts, survey: Survey, now: datetime) -> bool:
    """Whether one of its times is ahead by more than clocks may differ."""
    latest = now + survey.skew
    times = (facts.session.created_at, facts.session.last_accessed_at)
    return any(moment is not None and moment > latest for moment in times)
