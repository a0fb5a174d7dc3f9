"""Whether a session has ended, where Redis alone tells of it (R4.1)."""

from __future__ import annotations

from enum import Enum, auto

from stores.model.cutoffs import Cutoffs
from stores.redis.content.session_content import Content


class SessionState(Enum):
    """What is to be thought of a session."""

    LIVE = auto()
    IDLE = auto()
    """Past its idle timeout, and nothing else."""
    ENDED = auto()
    """Past its absolute timeout, or the application's own expiry."""


def session_state(content: Content, *, has_ttl: bool, cutoffs: Cutoffs) -> SessionState:
    """Judges a session that is there.

    What its content does not tell is never held against it. The content's expiry counts only where the key has no TTL:
    applications that set a TTL prolong it without writing the content anew, so that the content falls behind.

    Args:
        content: what the session says.
        has_ttl: whether its key ends by itself.
        cutoffs: before when a session has expired.
    """
    absolute, created = cutoffs.absolute, content.created_at
    if absolute is not None and created is not None and created < absolute:
        return SessionState.ENDED
    if not has_ttl and content.expires_at is not None and content.expires_at < cutoffs.expiry:
        return SessionState.ENDED
    if content.last_accessed_at is not None and content.last_accessed_at < cutoffs.idle:
        return SessionState.IDLE
    return SessionState.LIVE
