"""LongRunning: a session that has gone on for longer than it may."""

from __future__ import annotations

from datetime import datetime, timedelta

from policy.rules import SessionRule
from stores.rules.defaults import after_seconds
from stores.rules.facts import Facts, Survey


def is_long_running(rule: SessionRule, facts: Facts, survey: Survey, now: datetime) -> bool:
    """Whether it began longer ago, by more than clocks may differ."""
    began = facts.session.created_at
    return began is not None and began < now - survey.skew - timedelta(seconds=after_seconds(rule))
