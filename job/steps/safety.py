"""What one run may delete at most."""

from __future__ import annotations

from policy.spec import Safety


def exceeds_share(deleting: int, total: int, safety: Safety) -> bool:
    """Whether so many of so many sessions are more than the policy lets one run delete."""
    return deleting > safety.always_allowed_deletions and deleting * 100 > total * safety.max_delete_percent


def share_exceeded(deleting: int, total: int, safety: Safety) -> str | None:
    """Which limit a run would exceed, for people; None where the share is not too large.

    Args:
        deleting: how many sessions would be deleted.
        total: of how many.
        safety: the policy's limits.
    """
    if not exceeds_share(deleting, total, safety):
        return None
    return f"{deleting} of {total} sessions exceed safety.maxDeletePercent ({safety.max_delete_percent} %)"


class DeletionLimit:
    """``safety.maxDeletions``: how many sessions a run may still delete.

    Args:
        limit: at most so many; 0 for any number.
    """

    def __init__(self, limit: int = 0) -> None:
        self._left = limit or None
        self.reached = False
        """Whether something was left because of the limit."""

    @property
    def is_set(self) -> bool:
        """Whether there is a limit at all."""
        return self._left is not None

    def allowed(self, wanted: int) -> int:
        """How many of the wanted may be deleted."""
        if self._left is None or wanted <= self._left:
            return wanted
        self.reached = True
        return self._left

    def count(self, deleted: int) -> None:
        """So many were deleted."""
        if self._left is not None:
            self._left = max(0, self._left - deleted)
