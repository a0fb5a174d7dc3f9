"""Revoked: a session that the application itself has flagged or revoked."""

from __future__ import annotations

from datetime import datetime

from policy.rules import SessionRule
from stores.rules.facts import Facts, Survey


def is_revoked(_rule: SessionRule, facts: Facts, _survey: Survey, _now: datetime) -> bool:
    """Whether the mapped column says so."""
    return facts.revoked
