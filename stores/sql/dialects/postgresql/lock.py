"""Advisory locks of PostgreSQL."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from stores.model.errors import ConfigurationError, LockHeldError
from stores.sql.dialects.lock import lock_held

_TABLE_CLASS = 0x53504F4C  # "SPOL": distinguishes our advisory locks from those of applications
_PRESENCE_CLASS = 0x53504F57  # "SPOW"

_HOLDER = sa.text(
    # The lock's two keys as pg_locks shows them: the second one is the table's object id, moved by half its range.
    "SELECT a.application_name, host(a.client_addr),"
    " to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')"
    " FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.classid::bigint = :class AND l.objsubid = 2"
    " AND l.objid::bigint = (CAST(CAST(:table AS regclass) AS oid)::bigint + 2147483648) % 4294967296"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class AdvisoryLock:
    """An advisory lock of the connection.

    Args:
        space: the first of its two keys, which distinguishes kinds of locks.
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


class TableLock(AdvisoryLock):
    """On the table's own object id: one lock, whatever quotes and schema the table is named with.

    Args:
        table: the quoted, perhaps qualified name of the table.
    """

    def __init__(self, table: str) -> None:
        # An object id is unsigned.
        key = "(CAST(CAST(:table AS regclass) AS oid)::bigint - 2147483648)::int"
        super().__init__(_TABLE_CLASS, key, {"table": table})
        self._table = table

    def _refused(self, connection: sa.Connection) -> LockHeldError:
        try:
            row = connection.execute(_HOLDER, {"class": _TABLE_CLASS, "table": self._table}).first()
        except sa.exc.SQLAlchemyError:
            row = None
        if row is None:
            return lock_held()
        return lock_held(f"by {row[0] or 'a connection'} from {row[1] or 'this machine'}, connected since {row[2]} UTC")


def presence_lock(name: str) -> AdvisoryLock:
    """The lock by which others know that a worker of this name is connected."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], signed=True)
    return AdvisoryLock(_PRESENCE_CLASS, "CAST(:key AS int)", {"key": number})
