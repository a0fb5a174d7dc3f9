"""The exclusive lock on a session table, in the store itself.

Kubernetes' ``concurrencyPolicy: Forbid`` does not see Jobs made by hand, and two policies may share one table. Each
lock here ends with its connection or process, so a run that was killed never leaves one behind.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from typing import Protocol

import sqlalchemy as sa

from job.database.lock_holder import file_holder, mysql_holder, postgres_holder
from job.errors import ConfigurationError, LockHeldError

_ADVISORY_CLASS = 0x53504F4C  # "SPOL": tells our advisory locks from an application's


class Lock(Protocol):
    """An exclusive lock bound to a connection or to this process."""

    def acquire(self, connection: sa.Connection) -> None:
        """Takes it, without waiting. Raises LockHeldError if another run has it."""

    def verify(self, connection: sa.Connection) -> None:
        """Raises ConfigurationError where the lock cannot hold."""

    def close(self) -> None:
        """Gives back what a closed connection does not."""


class NoLock:
    """Before the lock is taken, and for databases that only this process can reach."""

    def acquire(self, connection: sa.Connection) -> None:
        """Nothing to take."""

    def verify(self, connection: sa.Connection) -> None:
        """Nothing to verify."""

    def close(self) -> None:
        """Nothing to give back."""


class PostgresLock:
    """An advisory lock of the session, on the table's own object id: one lock however the table is spelt.

    Args:
        table: the quoted, perhaps qualified name of the table.
    """

    def __init__(self, table: str) -> None:
        self._table = table
        self._backend: int | None = None

    def acquire(self, connection: sa.Connection) -> None:
        """Takes it, without waiting."""
        row = connection.execute(
            # An object id is unsigned; the lock's key is a signed 32-bit number.
            sa.text(
                "SELECT pg_try_advisory_lock(:class, (CAST(CAST(:table AS regclass) AS oid)::bigint - 2147483648)::int)"
                ","
                " pg_backend_pid()"
            ),
            {"class": _ADVISORY_CLASS, "table": self._table},
        ).one()
        if not row[0]:
            raise LockHeldError(postgres_holder(connection, _ADVISORY_CLASS, self._table))
        self._backend = row[1]

    def verify(self, connection: sa.Connection) -> None:
        """A pooler that hands each transaction to another server process would make the lock worthless."""
        backend = connection.scalar(sa.text("SELECT pg_backend_pid()"))
        if backend != self._backend:
            raise ConfigurationError(
                "transactions reach different server processes, so the lock does not hold: connect to PostgreSQL "
                "directly, or through a pooler in session mode"
            )

    def close(self) -> None:
        """The connection's end releases it."""


class MySQLLock:
    """A named lock of the server, for the table as the server knows it.

    It holds within one server: two members of a Galera cluster or a replication group do not know each other's.

    Args:
        schema: the table's; None for the connection's.
        table: its name.
    """

    def __init__(self, schema: str | None, table: str) -> None:
        self._schema = schema
        self._table = table
        self._name: str | None = None

    def acquire(self, connection: sa.Connection) -> None:
        """Takes it, without waiting."""
        self._name = self._name_on(connection)
        if connection.scalar(sa.text("SELECT GET_LOCK(:name, 0)"), {"name": self._name}) != 1:
            raise LockHeldError(mysql_holder(connection, self._name))

    def verify(self, connection: sa.Connection) -> None:
        """A proxy that hands each transaction to another connection would make the lock worthless."""
        ours = sa.text("SELECT IS_USED_LOCK(:name) = CONNECTION_ID()")
        if connection.scalar(ours, {"name": self._name}) != 1:
            raise ConfigurationError(
                "transactions reach different connections of the server, so the lock does not hold: connect to the "
                "server directly, or without multiplexing"
            )

    def close(self) -> None:
        """The connection's end releases it."""

    def _name_on(self, connection: sa.Connection) -> str:
        current, folds = connection.execute(sa.text("SELECT DATABASE(), @@lower_case_table_names")).one()
        where = f"{self._schema or current}\0{self._table}"
        # A lock's name has 64 characters at most, fewer than a schema and a table may have together.
        digest = hashlib.sha256((where.lower() if folds else where).encode()).hexdigest()
        return f"session-policy:{digest[:40]}"


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
            raise LockHeldError(file_holder()) from None
        self._descriptor = descriptor

    def verify(self, connection: sa.Connection) -> None:
        """The kernel keeps it for us."""

    def close(self) -> None:
        """Releases it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
