"""What PostgreSQL does its own way."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from policy.mapping import TimeEncoding
from stores.model.errors import ConfigurationError, DatabaseUnavailableError
from stores.model.key_range import KeyRange
from stores.sql.dialects.base import (
    BAD_OPTION,
    CLOCK_TIMES,
    CONNECT_TIMEOUT_SECONDS,
    HIDDEN,
    LOCK_TIMEOUT_SECONDS,
    LOGIN_REFUSED,
    NETWORK,
    NO_PRIVILEGE,
    NO_SUCH_DATABASE,
    STATEMENT_TIMEOUT_SECONDS,
    TABLES_CHANGED,
    Dialect,
    Explanation,
    ForeignKeyColumn,
    TableLayout,
    number_problem,
)
from stores.sql.dialects.lock import Lock
from stores.sql.dialects.postgresql.block_ranges import BlockRanges
from stores.sql.dialects.postgresql.bulk_delete import plan
from stores.sql.dialects.postgresql.lock import TableLock, presence_lock
from stores.sql.dialects.postgresql.upsert import insert_selected
from stores.sql.removal.bulk_delete import BulkDeletePlan, BulkDeleteRequest, DeletesInBulk

# SQLSTATEs after which the same statement may well succeed: serialization failure, deadlock, lock or statement timeout.
_TRANSIENT = frozenset({"40001", "40P01", "55P03", "57014"})
# Classes of SQLSTATEs in which a row's data, a constraint or a trigger (also one that raises) says no.
_REFUSALS = ("09", "22", "23", "27", "2F", "38", "39", "44", "P0")
_LOST = ("08", "57P")
# Python's calendar, less a few days for time zones.
_CALENDAR = (datetime(1, 1, 3, tzinfo=UTC), datetime(9999, 12, 29, tzinfo=UTC))


class PostgreSQL(Dialect, DeletesInBulk):
    """PostgreSQL."""

    name = "postgresql"
    names = ("postgresql",)
    compact_epoch = datetime(2000, 1, 1)
    driver = "psycopg"
    drivers: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("postgres", "postgresql", "postgresql+psycopg"), "postgresql+psycopg"
    )
    explanations = (
        Explanation(
            ("authentication failed", "no pg_hba.conf entry", 'fatal:  role "', "sqlstate 28p01", "sqlstate 28000"),
            ConfigurationError,
            LOGIN_REFUSED,
        ),
        Explanation(("sqlstate 3d000", 'fatal:  database "'), ConfigurationError, NO_SUCH_DATABASE),
        Explanation(("sqlstate 42501",), ConfigurationError, NO_PRIVILEGE),
        Explanation(
            ("sqlstate 3f000", "sqlstate 42p01", "sqlstate 42703", "sqlstate 42804", "sqlstate 42883"),
            ConfigurationError,
            TABLES_CHANGED,
        ),
        Explanation(
            ("invalid connection", "invalid sslmode", "invalid port", "invalid integer", "does not support ssl"),
            ConfigurationError,
            BAD_OPTION,
        ),
        Explanation(("sqlstate 57014",), DatabaseUnavailableError, "the database did not answer in time"),
        *NETWORK,
    )

    def create_engine(self, url: URL, create_file: bool) -> sa.Engine:
        """READ COMMITTED: each statement must see what applications have committed since."""
        timeouts = {"lock_timeout": LOCK_TIMEOUT_SECONDS, "statement_timeout": STATEMENT_TIMEOUT_SECONDS}
        engine = sa.create_engine(
            url,
            poolclass=NullPool,
            isolation_level="READ COMMITTED",
            use_native_hstore=False,  # or each connection begins with looking for that type
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                "application_name": "session-policy",
                "keepalives_idle": 30,
                "keepalives_interval": 10,
                "keepalives_count": 3,
                "options": " ".join(f"-c {name}={seconds * 1000}" for name, seconds in timeouts.items()),
            },
            **HIDDEN,
        )
        from stores.sql.dialects.postgresql import psycopg_formats  # noqa: PLC0415 - only a run on PostgreSQL needs the driver

        sa.event.listen(engine, "connect", psycopg_formats.arrays_in_binary)
        sa.event.listen(engine, "before_cursor_execute", psycopg_formats.bulk_deletes_in_binary)
        return engine

    def cancel(self, engine: sa.Engine, driver_connection: Any) -> None:
        """By a cancel request, which needs no login."""
        driver_connection.cancel_safe(timeout=5)

    def lock(self, database: str | None, schema: str | None, table: str) -> Lock:
        """An advisory lock."""
        return TableLock(_quoted(schema, table))

    def presence(self, name: str) -> Lock:
        """An advisory lock."""
        return presence_lock(name)

    def now(self, connection: sa.Connection) -> datetime | None:
        """Of this moment, not of the transaction's start."""
        moment: datetime = connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
        return moment

    def server_zone(self, connection: sa.Connection) -> str | None:
        """What server, database or role set; an application's role may differ."""
        zone: str = connection.execute(sa.text("SHOW TimeZone")).scalar_one()
        return zone

    def written_by_others(self, connection: sa.Connection, own: int) -> int:
        """In transactions: each that writes takes a number, in whatever database of the server."""
        given: int = connection.execute(sa.text("SELECT txid_snapshot_xmax(txid_current_snapshot())")).scalar_one()
        return given - own

    def is_transient(self, original: BaseException) -> bool:
        """By SQLSTATE."""
        return _state(original) in _TRANSIENT

    def is_refusal(self, original: BaseException) -> bool:
        """By SQLSTATE."""
        return _state(original).startswith(_REFUSALS)

    def is_connection_lost(self, original: BaseException) -> bool:
        """By SQLSTATE."""
        return _state(original).startswith(_LOST)

    def code(self, original: BaseException) -> str | None:
        """SQLSTATE."""
        state = _state(original)
        return f"SQLSTATE {state}" if state else None

    def error_text(self, original: BaseException) -> str:
        """The SQLSTATE where there is one: a text may quote data, in which anything can stand."""
        return (self.code(original) or str(original)).lower()

    def insert(self, table: sa.Table, keys: Sequence[str], changes: Mapping[str, Any], adds: Collection[str]) -> Any:
        """ON CONFLICT DO UPDATE."""
        statement = postgresql.insert(table)
        added = {name: table.c[name] + statement.excluded[name] for name in adds}
        return statement.on_conflict_do_update(index_elements=list(keys), set_={**changes, **added})

    def add_rows(
        self,
        connection: sa.Connection,
        table: sa.Table,
        keys: Sequence[str],
        same: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
        adds: Collection[str],
    ) -> None:
        """As one statement with an array for each column: there may be thousands of rows."""
        names = list(rows[0])
        arrays = [sa.literal([row[name] for row in rows], sa.ARRAY(table.c[name].type)) for name in names]
        given = sa.func.unnest(*arrays).table_valued(*names, name="given").render_derived()
        fixed = [sa.literal(value, table.c[name].type).label(name) for name, value in same.items()]
        connection.execute(insert_selected(table, keys, sa.select(*given.c, *fixed), adds))

    def id_in(self, column: sa.ColumnElement[Any], ids: Collection[Any]) -> sa.ColumnElement[bool]:
        """One array parameter: the statement stays the same for every batch size."""
        return column == sa.any_(sa.literal(list(ids), sa.ARRAY(column.type)))

    def layout(self, connection: sa.Connection, schema: str | None, table: str, id_index: str | None) -> TableLayout:
        """From pg_class and pg_index."""
        name = {"table": _quoted(schema, table)}
        kind, has_children, method, rows, blocks = connection.execute(_LAYOUT, name).one()
        no_ranges = _NO_RANGES.get(kind)
        if has_children:
            no_ranges = _NO_RANGES["p"]
        elif method != "heap":
            no_ranges = no_ranges or "its access method is not heap"
        elif (connection.dialect.server_version_info or ()) < _RANGES_SINCE:
            no_ranges = "the server is older than PostgreSQL 14"
        return TableLayout(
            rows=int(rows) if rows >= 0 else None,  # -1: never analysed
            blocks=int(blocks) if no_ranges is None else None,
            indexes={row[0]: row[1] for row in connection.execute(_INDEXES, name)},
            no_ranges=no_ranges,
        )

    def estimate(self, connection: sa.Connection, query: sa.Select[Any]) -> int | None:
        """By EXPLAIN."""
        compiled = query.compile(dialect=connection.dialect)
        (plan,) = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {compiled}", dict(compiled.params)).scalar_one()
        return int(plan["Plan"]["Plan Rows"])

    def keyset_value(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """As text: it knows infinity, and years that Python does not."""
        return sa.cast(column, sa.Text)

    def keyset_literal(self, value: Any, kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
        """From text."""
        return sa.cast(sa.literal(value, sa.Text), kind)

    def block_ranges(self, key_range: KeyRange, layout: TableLayout) -> Iterator[sa.ColumnElement[bool]]:
        """By ``ctid``."""
        ranges = BlockRanges(key_range, layout)
        while blocks := ranges.next():
            yield blocks.condition

    def bulk_delete(self, request: BulkDeleteRequest) -> BulkDeletePlan | None:
        """By row locations, ranges of blocks or ranges of an index."""
        return plan(request)

    def materialized(self, query: sa.CTE) -> sa.CTE:
        """Else a LIMIT outside may have the planner go through an index, and fetch row by row."""
        return query.prefix_with("MATERIALIZED")

    def reads_in_bulk(self, kind: sa.types.TypeEngine[Any]) -> bool:
        """The driver knows no binary format of citext."""
        return super().reads_in_bulk(kind) and not isinstance(kind, postgresql.CITEXT)

    def base_type(self, kind: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
        """A domain may be made of another one."""
        return self.base_type(kind.data_type) if isinstance(kind, postgresql.DOMAIN) else kind

    def compact_time(self, column: sa.ColumnElement[Any], encoding: TimeEncoding) -> sa.ColumnElement[Any]:
        """As the server keeps it; see :mod:`stores.sql.dialects.postgresql.psycopg_formats`."""
        return self.readable(column, encoding)

    def json_text(
        self, column: sa.ColumnElement[Any], path: Sequence[str], kind: sa.types.TypeEngine[Any]
    ) -> sa.ColumnElement[Any]:
        """By ``#>>``."""
        where = sa.literal(list(path), sa.ARRAY(sa.Text))
        type_of = sa.func.jsonb_typeof if isinstance(kind, postgresql.JSONB) else sa.func.json_typeof
        at = type_of(column.op("#>")(where))
        return sa.case((at.in_(["string", "number"]), column.op("#>>", return_type=sa.Text())(where)))

    def json_problem(self, kind: sa.types.TypeEngine[Any], path: Sequence[str]) -> str | None:
        """A text that is no JSON would end the statement."""
        return None if isinstance(kind, sa.JSON) else "path needs a column of type json or jsonb"

    def text(self, column: sa.ColumnElement[Any], kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
        """An address without its prefix length."""
        return sa.func.host(column) if isinstance(kind, postgresql.INET) else super().text(column, kind)

    def readable(self, column: sa.ColumnElement[Any], encoding: TimeEncoding) -> sa.ColumnElement[Any]:
        """PostgreSQL knows infinity, and years that Python does not."""
        if encoding not in CLOCK_TIMES:
            return column
        zoned = encoding is TimeEncoding.TIMESTAMP
        first, last = ((sa.literal(t if zoned else t.replace(tzinfo=None), sa.DateTime(zoned))) for t in _CALENDAR)
        return sa.case((column.between(first, last), column))

    def has_zone(self, kind: sa.types.TypeEngine[Any]) -> bool | None:
        """Whether the type is timestamptz."""
        return isinstance(kind, sa.DateTime) and kind.timezone

    def time_problem(self, kind: sa.types.TypeEngine[Any], encoding: TimeEncoding) -> str | None:
        """A comparison between the two kinds of timestamp would depend on the connection's zone."""
        if problem := number_problem(kind, encoding):
            return problem
        if encoding not in CLOCK_TIMES or self.has_zone(kind) == (encoding is TimeEncoding.TIMESTAMP):
            return None
        if self.has_zone(kind):
            return "with time zone: use encoding Timestamp"
        return "without time zone: use encoding NaiveTimestamp and say in timeZone which zone is meant"

    def foreign_key_columns(self, connection: sa.Connection, schema: str | None, table: str) -> list[ForeignKeyColumn]:
        """From pg_constraint; keys of partitions are their parent's."""
        rows = connection.execute(_REFERRING, {"table": _quoted(schema, table)})
        return [ForeignKeyColumn(r[0], r[1], r[2], r[3], r[4], _ON_DELETE.get(r[5], "NO ACTION"), r[6]) for r in rows]

    def create_index(self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str]) -> str:
        """Without a lock against writers."""
        return self._create_index(connection, schema, table, columns, "CREATE INDEX CONCURRENTLY")


_RANGES_SINCE = (14,)
_NO_RANGES = {
    "v": "it is a view",
    "m": "it is a view",
    "p": "it has partitions: name one of them, or choose another strategy",
    "f": "it is a foreign table",
}
_LAYOUT = sa.text(
    """
    SELECT c.relkind::text, c.relhassubclass, m.amname::text, c.reltuples,
           CASE WHEN c.relkind = 'r'
                THEN pg_relation_size(c.oid) / CAST(current_setting('block_size') AS integer) ELSE 0 END
      FROM pg_class c
      LEFT JOIN pg_am m ON m.oid = c.relam
     WHERE c.oid = CAST(:table AS regclass)
    """
)
_INDEXES = sa.text(
    """
    SELECT a.attname::text, x.relname::text
      FROM pg_index i
      JOIN pg_class x ON x.oid = i.indexrelid
      JOIN pg_am m ON m.oid = x.relam
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
     WHERE i.indrelid = CAST(:table AS regclass) AND m.amname = 'btree' AND i.indisvalid AND i.indpred IS NULL
    """
)
_ON_DELETE = {"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT", "r": "RESTRICT"}
_REFERRING = sa.text(
    """
    SELECT c.conname::text, n.nspname::text, r.relname::text, mine.attname::text, theirs.attname::text,
           c.confdeltype::text, c.conrelid = c.confrelid
      FROM pg_constraint c
      JOIN pg_class r ON r.oid = c.conrelid
      JOIN pg_namespace n ON n.oid = r.relnamespace
     CROSS JOIN LATERAL unnest(c.conkey, c.confkey) WITH ORDINALITY AS k (mine, theirs, place)
      JOIN pg_attribute mine ON mine.attrelid = c.conrelid AND mine.attnum = k.mine
      JOIN pg_attribute theirs ON theirs.attrelid = c.confrelid AND theirs.attnum = k.theirs
     WHERE c.contype = 'f' AND c.conparentid = 0 AND c.confrelid = CAST(:table AS regclass)
     ORDER BY 2, 3, 1, k.place
    """
)


def _quoted(schema: str | None, table: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in (schema, table) if part)


def _state(original: BaseException) -> str:
    return getattr(original, "sqlstate", None) or ""
