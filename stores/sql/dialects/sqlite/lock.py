"""A lock on a file beside an SQLite database."""

from __future__ import annotations

import fcntl
import os

import sqlalchemy as sa

from stores.model.errors import ConfigurationError
from stores.sql.dialects.lock import lock_held


class FileLock:
    """A lock on a file beside an SQLite database; the kernel releases it when the process ends, however it ends.

    Args:
        path: of the lock file. It stays behind, empty: removing it could split a lock in two.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self, connection: sa.Connection) -> None:
        """Takes it, without waiting."""
        if self._descriptor is not None:
            return  # a new connection; the lock is the process's
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"the lock file beside the SQLite file cannot be opened: {error.strerror}; the run needs to write there"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise lock_held("by another process on this machine") from None
        self._descriptor = descriptor

    def verify(self, connection: sa.Connection) -> None:
        """The kernel keeps it until the process ends."""

    def held_by(self, connection: sa.Connection) -> int | None:
        """The kernel does not tell."""
        return None

    def close(self) -> None:
        """Releases it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
