"""Who is told of single sessions that were deleted: whoever runs the stores hands it in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from stores.model.sessions import Session


class SessionLog(Protocol):
    """A log of deleted sessions, told of them a batch at a time."""

    @property
    def tells_deleted(self) -> bool:
        """Whether deleted sessions are written anywhere; if not, nobody need read them back."""

    def deleted(self, sessions: Sequence[Session], cause: str) -> None:
        """Takes a batch of deleted sessions.

        Args:
            sessions: a batch, after its transaction was committed.
            cause: why they were deleted, as in the history.
        """
