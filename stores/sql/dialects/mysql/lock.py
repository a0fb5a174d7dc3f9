"""Named locks of a MySQL or MariaDB server."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa

from stores.model.errors import ConfigurationError
from stores.sql.dialects.lock import lock_held

_HOLDER = sa.text("SELECT id, host, time FROM information_schema.processlist WHERE id = IS_USED_LOCK(:name)")


class NamedLock:
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
            raise lock_held(_holder(connection, name))

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


class TableLock(NamedLock):
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
            # Hashed, for a schema and a table have up to 64 characters each: more than the name of a lock may have.
            self._name = _hashed("session-policy", where.lower() if folds else where)
        return self._name


def presence_lock(name: str) -> NamedLock:
    """The lock by which others know that a worker of this name is connected."""
    return NamedLock(_hashed("session-policy-worker", name))


def _hashed(kind: str, of: str) -> str:
    return f"{kind}:{hashlib.sha256(of.encode()).hexdigest()[:40]}"


def _holder(connection: sa.Connection, name: str) -> str:
    """Who holds the lock; empty where the server does not tell."""
    try:
        row = connection.execute(_HOLDER, {"name": name}).first()
    except sa.exc.SQLAlchemyError:
        row = None
    return f"by connection {row[0]} from {row[1]}" if row else ""
