"""ClientChange: a session that is used by another client than it began with. An update of the client is no change."""

from __future__ import annotations

from datetime import datetime

from policy.rules import SessionRule
from stores.rules.clients import signature
from stores.rules.facts import Facts, Survey


def changes_client(_rule: SessionRule, facts: Facts, _survey: Survey, _now: datetime) -> bool:
    """Whether its newest known client is not its first. Without a column for that, the access log tells the first."""
    newest = next((access.client for access in facts.accesses if access.client), None)
    first = facts.client or next((access.client for access in reversed(facts.accesses) if access.client), None)
    return newest is not None and first is not None and signature(newest) != signature(first)
