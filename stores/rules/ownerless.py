"""Ownerless: a session without an owner, where each must have one."""

from __future__ import annotations

from datetime import datetime

from policy.rules import SessionRule
from stores.model.sessions import Session
from stores.rules.facts import Facts, Survey


def is_ownerless(_rule: SessionRule, facts: Facts, _survey: Survey, _now: datetime) -> bool:
    """Whether it has none; an empty text is no owner."""
    return not has_owner(facts.session)


def has_owner(session: Session) -> bool:
    """Whether it has one. Sessions without an owner are nobody's: they have no more in common than that."""
    return session.user_id is not None and str(session.user_id) != ""
