"""The exclusive lock on a session table, in the store itself.

Kubernetes' ``concurrencyPolicy: Forbid`` does not see Jobs made by hand, and two policies may share one table. Each
lock here ends with its connection or process, so a run that was killed never leaves one behind.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Mapping
from typing import Any, Protocol

import sqlalchemy as sa

from stores.model.errors import ConfigurationError, LockHeldError
from stores.sql.dialects.lock_holder import file_holder, mysql_holder, postgres_holder

_ADVISORY_CLASS = 0x53504F4C  # "SPOL": tells our advisory locks from an application's
_PRESENCE_CLASS = 0x53504F57  # "SPOW"


class Lock(Protocol):
    """An exclusive lock bound to a connection or to this process."""

    def acquire(self, connection: sa.Connection) -> None:
        """Takes it, without waiting. Raises LockHeldError if another run has it."""

    def verify(self, connection: sa.Connection) -> None:
        """Raises ConfigurationError where the lock cannot hold."""

    def held_by(self, connection: sa.Connection) -> int | None:
        """The server's number of the connection that holds it; None where none does, or where there is no server."""

    def close(self) -> None:
        """Gives back what a closed connection does not."""


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
        """Nothing to give back."""


class PostgresLock:
    """An advisory lock of the session.

    Args:
        space: the first of its two keys, which tells kinds of locks apart.
        key: SQL that makes the second one, a signed 32-bit number.
        parameters: of that SQL.
    """

    def __init__(self, space: int, key: str, parameters: Mapping[str, Any]) -> None:
        self._key = key
        self._parameters = {"space": space, **parameters}
        self._backend: int | None = None

    def acquire(self, connection: sa.Connection) -> None:
        """Takes it, without waiting."""
        statement = sa.text(f"SELECT pg_try_advisory_lock(:space, {self._key}), pg_backend_pid()")
        row = connection.execute(statement, self._parameters).one()
        if not row[0]:
            raise self._refused(connection)
        self._backend = row[1]

    def verify(self, connection: sa.Connection) -> None:
        """A pooler that hands each transaction to another server process would make the lock worthless."""
        backend = connection.scalar(sa.text("SELECT pg_backend_pid()"))
        if backend != self._backend:
            raise ConfigurationError(
                "transactions reach different server processes, so the lock does not hold: connect to PostgreSQL "
                "directly, or through a pooler in session mode"
            )

    def held_by(self, connection: sa.Connection) -> int | None:
        """The server process of the connection."""
        statement = sa.text(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2"  # noqa: S608
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            # The view shows both keys without their sign.
            f" AND classid::bigint = :space AND objid::bigint = (({self._key})::bigint + 4294967296) % 4294967296"
        )
        backend: int | None = connection.scalar(statement, self._parameters)
        return backend

    def close(self) -> None:
        """The connection's end releases it."""

    def _refused(self, connection: sa.Connection) -> LockHeldError:
        return LockHeldError("the lock is held by another process")


class PostgresTableLock(PostgresLock):
    """On the table's own object id: one lock however the table is spelt.

    Args:
        table: the quoted, perhaps qualified name of the table.
    """

    def __init__(self, table: str) -> None:
        # An object id is unsigned.
        key = "(CAST(CAST(:table AS regclass) AS oid)::bigint - 2147483648)::int"
        super().__init__(_ADVISORY_CLASS, key, {"table": table})
        self._table = table

    def _refused(self, connection: sa.Connection) -> LockHeldError:
        return LockHeldError(postgres_holder(connection, _ADVISORY_CLASS, self._table))


def postgres_presence(name: str) -> PostgresLock:
    """The lock by which a worker of this name is known to be there."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], signed=True)
    return PostgresLock(_PRESENCE_CLASS, "CAST(:key AS int)", {"key": number})


class MySQLLock:
    """A named lock of the server.

    It holds within one server: two members of a Galera cluster or a replication group do not know each other's.

    Args:
        name: of the lock, 64 characters at most.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def acquire(self, connection: sa.Connection) -> None:
        """Takes it, without waiting."""
        name = self._name_on(connection)
        if connection.scalar(sa.text("SELECT GET_LOCK(:name, 0)"), {"name": name}) != 1:
            raise LockHeldError(mysql_holder(connection, name))

    def verify(self, connection: sa.Connection) -> None:
        """A proxy that hands each transaction to another connection would make the lock worthless."""
        ours = sa.text("SELECT IS_USED_LOCK(:name) = CONNECTION_ID()")
        if connection.scalar(ours, {"name": self._name_on(connection)}) != 1:
            raise ConfigurationError(
                "transactions reach different connections of the server, so the lock does not hold: connect to the "
                "server directly, or without multiplexing"
            )

    def held_by(self, connection: sa.Connection) -> int | None:
        """The connection's id."""
        name = self._name_on(connection)
        holder: int | None = connection.scalar(sa.text("SELECT IS_USED_LOCK(:name)"), {"name": name})
        return holder

    def close(self) -> None:
        """The connection's end releases it."""

    def _name_on(self, connection: sa.Connection) -> str:
        return self._name


class MySQLTableLock(MySQLLock):
    """For a table as the server knows it.

    Args:
        schema: the table's; None for the connection's.
        table: its name.
    """

    def __init__(self, schema: str | None, table: str) -> None:
        super().__init__("")
        self._schema = schema
        self._table = table

    def _name_on(self, connection: sa.Connection) -> str:
        if not self._name:
            current, folds = connection.execute(sa.text("SELECT DATABASE(), @@lower_case_table_names")).one()
            where = f"{self._schema or current}\0{self._table}"
            # Longer than a name may be: a schema and a table have up to 64 characters each.
            self._name = _mysql_name("session-policy", where.lower() if folds else where)
        return self._name


def mysql_presence(name: str) -> MySQLLock:
    """The lock by which a worker of this name is known to be there."""
    return MySQLLock(_mysql_name("session-policy-worker", name))


def _mysql_name(kind: str, of: str) -> str:
    return f"{kind}:{hashlib.sha256(of.encode()).hexdigest()[:40]}"


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

    def held_by(self, connection: sa.Connection) -> int | None:
        """The kernel does not tell."""
        return None

    def close(self) -> None:
        """Releases it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
