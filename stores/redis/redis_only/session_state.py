"""Decides whether a session has expired, from its Redis key alone (R4.1)."""

from __future__ import annotations

from enum import Enum, auto

from stores.model.cutoffs import Cutoffs
from stores.redis.content.session_content import Content


class SessionState(Enum):
    """Whether a session is live or has expired."""

    LIVE = auto()
    IDLE = auto()
    """Past its idle timeout only."""
    ENDED = auto()
    """Past its absolute timeout or the application's own expiry."""


def session_state(content: Content, *, has_ttl: bool, cutoffs: Cutoffs) -> SessionState:
    """The state of an existing session.

    Values that its content lacks never make it expired. The content's own expiry counts only if the key has no TTL:
    applications with TTLs extend the TTL without rewriting the content, so that the expiry in it is outdated.

    Args:
        content: the session's content.
        has_ttl: whether its key has a TTL.
        cutoffs: the times before which a session has expired.
    """
    absolute, created = cutoffs.absolute, content.created_at
    if absolute is not None and created is not None and created < absolute:
        return SessionState.ENDED
    if not has_ttl and content.expires_at is not None and content.expires_at < cutoffs.expiry:
        return SessionState.ENDED
    if content.last_accessed_at is not None and content.last_accessed_at < cutoffs.idle:
        return SessionState.IDLE
    return SessionState.LIVE
