"""LongRunning: a session that has gone on for longer than it may."""

from __future__ import annotations

from datetime import datetime, timedelta

from job.rules.defaults import after_seconds
from job.rules.facts import Facts, Survey
from policy.rules import SessionRule


def is_long_running(rule: SessionRule, facts: Facts, survey: Survey, now: datetime) -> bool:
    """Whether it began longer ago, by more than clocks may differ."""
    began = facts.session.created_at
    return began is not None and began < now - survey.skew - timedelta(seconds=after_seconds(rule))
