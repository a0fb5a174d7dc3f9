"""The exclusive lock on a session table, in the store itself.

Kubernetes' ``concurrencyPolicy: Forbid`` does not see Jobs made by hand, and two policies may share one table. Each
kind of database has a lock that ends with its connection or process, so a run that was killed never leaves one behind.
"""

from __future__ import annotations

from typing import Protocol

import sqlalchemy as sa

from stores.model.errors import LockHeldError


class Lock(Protocol):
    """An exclusive lock bound to a connection or to this process."""

    def acquire(self, connection: sa.Connection) -> None:
        """Takes it, without waiting. Raises LockHeldError if another run has it."""

    def verify(self, connection: sa.Connection) -> None:
        """Raises ConfigurationError where the lock cannot hold."""

    def held_by(self, connection: sa.Connection) -> int | None:
        """The server's number of the connection that holds it; None where none does, or where there is no server."""

    def close(self) -> None:
        """Releases what closing the connection does not."""


class NoLock:
    """Before the lock is taken, and for databases that only this process can reach."""

    def acquire(self, connection: sa.Connection) -> None:
        """Nothing to take."""

    def verify(self, connection: sa.Connection) -> None:
        """Nothing to verify."""

    def held_by(self, connection: sa.Connection) -> int | None:
        """Nobody."""
        return None

    def close(self) -> None:
        """Nothing to release."""


def lock_held(holder: str = "") -> LockHeldError:
    """What to raise where another run holds the lock on a session table.

    Args:
        holder: who holds it, e.g. "by another process on this machine"; empty where the database does not tell.
    """
    held = " ".join(f"the exclusive lock on the session table is held {holder}".split())
    return LockHeldError(f"{held}; try again when it is done")
