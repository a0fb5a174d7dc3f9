"""The log of single deleted sessions, as the stores need it; the caller implements it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from stores.model.sessions import Session


class SessionLog(Protocol):
    """A log of deleted sessions, which takes a batch at a time."""

    @property
    def tells_deleted(self) -> bool:
        """Whether deleted sessions are written anywhere; if not, they need not be read back from the database."""

    def deleted(self, sessions: Sequence[Session], cause: str) -> None:
        """Logs a batch of deleted sessions.

        Args:
            sessions: a batch, after its transaction was committed.
            cause: why they were deleted, as in the history.
        """
