"""What SQLite does its own way."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from policy.mapping import TimeEncoding
from policy.names import DATABASE_URL_ENV
from stores.model.errors import ConfigurationError, DatabaseUnavailableError
from stores.sql.dialects.base import (
    BAD_OPTION,
    CLOCK_TIMES,
    HIDDEN,
    LOCK_TIMEOUT_SECONDS,
    NO_PRIVILEGE,
    TABLES_CHANGED,
    Dialect,
    Explanation,
    ForeignKeyColumn,
    json_path,
)
from stores.sql.dialects.lock import Lock, NoLock
from stores.sql.dialects.sqlite.lock import FileLock

_TRANSIENT = frozenset({"database is locked", "interrupted"})
# The driver's, and those of a file's URI.
_URL_OPTIONS = frozenset(
    {"timeout", "detect_types", "isolation_level", "check_same_thread", "cached_statements", "uri"}
    | {"mode", "cache", "immutable", "nolock", "psow", "vfs"}
)
_DATE_GLOB = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"


class SQLite(Dialect):
    """SQLite. Its columns have no fixed type, so much is decided value by value."""

    name = "sqlite"
    names = ("sqlite",)
    has_column_types = False
    # 32,766, unless it was built otherwise.
    max_parameters = 30_000
    # It has one lock for all who write, and no queue.
    rests_after_transactions = True
    driver = "sqlite3"
    index_options: ClassVar[Mapping[str, Any]] = {"include_auto_indexes": True}
    drivers: ClassVar[Mapping[str, str]] = {"sqlite": "sqlite", "sqlite+pysqlite": "sqlite"}
    explanations = (
        Explanation(("readonly database",), ConfigurationError, NO_PRIVILEGE),
        Explanation(
            ("file is not a database", "unable to open database file"),
            ConfigurationError,
            f"{DATABASE_URL_ENV}: the SQLite file cannot be opened as a database",
        ),
        Explanation(("no such table", "no such column"), ConfigurationError, TABLES_CHANGED),
        Explanation(("database is locked",), DatabaseUnavailableError, "another program keeps the database locked"),
    )

    def create_engine(self, url: URL, create_file: bool) -> sa.Engine:
        """Each transaction takes the write lock at once."""
        if not create_file and url.database and not Path(url.database).exists():
            raise ConfigurationError(f"{DATABASE_URL_ENV}: there is no SQLite file at its path; `init` creates one")
        if not set(url.query) <= _URL_OPTIONS:
            raise ConfigurationError(BAD_OPTION)  # SQLAlchemy would warn, and quote it
        try:
            engine = sa.create_engine(url, poolclass=NullPool, connect_args={"timeout": LOCK_TIMEOUT_SECONDS}, **HIDDEN)
        except (TypeError, ValueError):
            raise ConfigurationError(BAD_OPTION) from None
        sa.event.listen(engine, "connect", _manual_transactions)
        sa.event.listen(engine, "begin", _begin_immediate)
        return engine

    def cancel(self, engine: sa.Engine, driver_connection: Any) -> None:
        """By an interrupt."""
        driver_connection.interrupt()

    def lock(self, database: str | None, schema: str | None, table: str) -> Lock:
        """A lock on a file; one for the whole database."""
        if not database or database == ":memory:":
            return NoLock()
        # One lock for one file, whatever path leads to it.
        return FileLock(f"{os.path.realpath(database)}.session-policy.lock")

    def is_transient(self, original: BaseException) -> bool:
        """By its text: SQLite's codes came late."""
        return str(original) in _TRANSIENT

    def is_refusal(self, original: BaseException) -> bool:
        """A constraint, or a trigger that raises."""
        return isinstance(original, sqlite3.IntegrityError)

    def is_connection_lost(self, original: BaseException) -> bool:
        """There is none: the database is a file."""
        return False

    def code(self, original: BaseException) -> str | None:
        """SQLite's codes say no more than the class of the error."""
        return None

    def insert(self, table: sa.Table, keys: Sequence[str], changes: Mapping[str, Any], adds: Collection[str]) -> Any:
        """ON CONFLICT DO UPDATE."""
        from sqlalchemy.dialects import sqlite  # noqa: PLC0415 - only a run on SQLite needs it

        statement = sqlite.insert(table)
        added = {name: table.c[name] + statement.excluded[name] for name in adds}
        return statement.on_conflict_do_update(index_elements=list(keys), set_={**changes, **added})

    def locking(self, query: sa.Select[Any], table: sa.TableClause, index: str | None) -> sa.Select[Any]:
        """The transaction has the write lock already."""
        return query

    def json_text(
        self, column: sa.ColumnElement[Any], path: Sequence[str], kind: sa.types.TypeEngine[Any]
    ) -> sa.ColumnElement[Any]:
        """By its own JSON functions, for what is JSON at all."""
        where = sa.literal(json_path(path))
        kind_at = sa.func.json_type(column, where)
        value = sa.cast(sa.func.json_extract(column, where), sa.Text)
        inner = sa.case((kind_at.in_(["text", "integer", "real"]), value))
        return sa.case((sa.func.json_valid(column) == sa.literal(1), inner))

    def json_problem(self, kind: sa.types.TypeEngine[Any], path: Sequence[str]) -> str | None:
        """SQLite's paths know no way to write a quote."""
        return "path must not contain quotes or backslashes" if any(c in part for part in path for c in '"\\') else None

    def marked(self, column: sa.ColumnElement[Any], kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[bool]:
        """By the type of each value."""
        number = sa.func.typeof(column).in_(["integer", "real"])
        return sa.and_(
            column.is_not(None),
            sa.case((number, column != sa.literal(0)), else_=column != sa.literal("")),
        )

    def instant(self, column: sa.ColumnElement[Any], encoding: TimeEncoding) -> sa.ColumnElement[Any]:
        """SQLite has no time type, and applications write text in several forms; its own functions read them all.

        They also take a bare number for a day, and a time of day for one of the year 2000: those mean nothing here.
        """
        if encoding not in CLOCK_TIMES:
            return column
        return sa.case((column.op("GLOB", return_type=sa.Boolean())(_DATE_GLOB), sa.func.julianday(column)))

    def ordered(self, column: sa.ColumnElement[Any], encoding: TimeEncoding) -> sa.ColumnElement[Any]:
        """Texts in several forms are not in the order of the times that they mean."""
        return self.instant(column, encoding)

    def text_length(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
        """SQLite calls it length."""
        return sa.func.length(column, type_=sa.Integer())

    def before(
        self, column: sa.ColumnElement[Any], encoding: TimeEncoding, bound: datetime | float | int
    ) -> sa.ColumnElement[bool]:
        """As day numbers, where times are text."""
        if encoding not in CLOCK_TIMES:
            return super().before(column, encoding, bound)
        return self.instant(column, encoding) < sa.func.julianday(str(bound))

    def foreign_key_columns(self, connection: sa.Connection, schema: str | None, table: str) -> list[ForeignKeyColumn]:
        """From the pragma of each table; names are compared as SQLite does."""
        keys = [row[0] for row in connection.execute(_PRIMARY_KEY, {"table": table})]
        return [
            # A key that names no columns refers to the primary key.
            ForeignKeyColumn(
                str(r[0]), schema, r[1], r[2], r[3] or keys[r[4]], r[5].upper(), r[1].lower() == table.lower()
            )
            for r in connection.execute(_REFERRING, {"table": table})
        ]

    def has_zone(self, kind: sa.types.TypeEngine[Any]) -> bool | None:
        """Each text says so itself."""
        return None

    def time_problem(self, kind: sa.types.TypeEngine[Any], encoding: TimeEncoding) -> str | None:
        """Any column may hold anything, but one declared as text compares numbers digit by digit."""
        if encoding not in CLOCK_TIMES and isinstance(kind, sa.String):
            return f"it compares as text; encoding {encoding} needs a number"
        return None


_PRIMARY_KEY = sa.text("SELECT name FROM pragma_table_info(:table) WHERE pk > 0 ORDER BY pk")
_REFERRING = sa.text(
    """
    SELECT f.id, m.name, f."from", f."to", f.seq, f.on_delete
      FROM sqlite_master m, pragma_foreign_key_list(m.name) f
     WHERE m.type = 'table' AND f."table" = :table COLLATE NOCASE
     ORDER BY m.name, f.id, f.seq
    """
)


def _manual_transactions(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's own recipe: no implicit BEGIN
    # Or what an application keeps about a session would stay behind, in spite of its ON DELETE CASCADE.
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_immediate(connection: sa.Connection) -> None:
    # Take the write lock at once: a transaction that reads first and writes later may fail half-way.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
