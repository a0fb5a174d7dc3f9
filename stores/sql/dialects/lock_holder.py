"""Who holds the exclusive lock, for whoever could not take it."""

from __future__ import annotations

import sqlalchemy as sa

_POSTGRES = sa.text(
    # The lock's two keys as pg_locks shows them: the second one is the table's object id, moved by half its range.
    "SELECT a.application_name, host(a.client_addr),"
    " to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')"
    " FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.classid::bigint = :class AND l.objsubid = 2"
    " AND l.objid::bigint = (CAST(CAST(:table AS regclass) AS oid)::bigint + 2147483648) % 4294967296"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_MYSQL = sa.text(
    "SELECT id, host, time FROM information_schema.processlist WHERE id = IS_USED_LOCK(:name)",
)


def postgres_holder(connection: sa.Connection, lock_class: int, table: str) -> str:
    """Who holds the advisory lock of a table; what cannot be told is left out."""
    try:
        row = connection.execute(_POSTGRES, {"class": lock_class, "table": table}).first()
    except sa.exc.SQLAlchemyError:
        row = None
    if row is None:
        return _held("")
    return _held(f"by {row[0] or 'a connection'} from {row[1] or 'this machine'}, connected since {row[2]} UTC")


def mysql_holder(connection: sa.Connection, name: str) -> str:
    """Who holds the named lock; what cannot be told is left out."""
    try:
        row = connection.execute(_MYSQL, {"name": name}).first()
    except sa.exc.SQLAlchemyError:
        row = None
    return _held(f"by connection {row[0]} from {row[1]}" if row else "")


def file_holder() -> str:
    """Who holds the lock on an SQLite database."""
    return _held("by another process on this machine")


def _held(by: str) -> str:
    return " ".join(f"the exclusive lock on the session table is held {by}".split()) + "; try again when it is done"
