"""What MySQL and MariaDB do their own way."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from policy.mapping import TimeEncoding
from policy.names import DATABASE_URL_ENV
from stores.model.errors import ConfigurationError, DatabaseUnavailableError
from stores.sql.dialects.base import (
    BULK_DELETE,
    CLOCK_TIMES,
    CONNECT_TIMEOUT_SECONDS,
    HIDDEN,
    LOCK_TIMEOUT_SECONDS,
    LOGIN_REFUSED,
    NETWORK,
    NO_PRIVILEGE,
    NO_SUCH_DATABASE,
    STATEMENT_TIMEOUT_SECONDS,
    Dialect,
    Explanation,
    ForeignKeyColumn,
    TableLayout,
    json_path,
    number_problem,
    require_driver,
)
from stores.sql.dialects.lock import Lock
from stores.sql.dialects.mysql.bulk_delete import PRIMARY_KEY, plan
from stores.sql.dialects.mysql.lock import TableLock, presence_lock
from stores.sql.removal.bulk_delete import BulkDeletePlan, BulkDeleteRequest, DeletesInBulk

# Lock wait timeout, deadlock, interrupted, statement too slow (MariaDB, MySQL), NOWAIT, changed since the last read.
_TRANSIENT = frozenset({1205, 1213, 1317, 1969, 3024, 3572, 1020})
# Shutdown, network errors, killed, idle for too long: besides those that SQLAlchemy knows.
_LOST = frozenset({1053, 1152, 1153, 1158, 1159, 1160, 1161, 1927, 4031})
# Constraints, triggers that SIGNAL, data that does not fit.
_REFUSALS = frozenset({1048, 1062, 1216, 1217, 1264, 1265, 1292, 1366, 1406, 1451, 1452, 1644, 1690, 3819, 4025})

# What a URL may say after the question mark; the driver would fail at others, such as the mysql client's ssl-mode.
_URL_OPTIONS = frozenset(
    {"charset", "unix_socket", "ssl_ca", "ssl_capath", "ssl_cert", "ssl_key", "ssl_key_password", "ssl_cipher"}
    | {"ssl_check_hostname", "ssl_verify_cert", "ssl_verify_identity"}
)
_STRICT = "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
# "0000-00-00" is how older applications write that there is no time.
_FIRST_DATE = datetime(1000, 1, 1)
# Reads as many ids by the primary key as a batch has: by default, long lists become a scan of the whole table.
_MARIADB_SETTINGS = {"max_statement_time": STATEMENT_TIMEOUT_SECONDS, "in_predicate_conversion_threshold": 0}
_MYSQL_SETTINGS = {"max_execution_time": STATEMENT_TIMEOUT_SECONDS * 1000, "range_optimizer_max_mem_size": 0}
# By whether it is MariaDB.
_SKIP_LOCKED_SINCE = {True: (10, 6), False: (8, 0, 1)}
# A lock wait timeout of 0 seconds.
_NO_WAIT_SINCE = (10, 6, 3)
_WRITTEN = "SHOW {} STATUS WHERE Variable_name IN ('Handler_delete', 'Handler_update', 'Handler_write')"
_VALUES_SINCE = {True: (10, 3), False: (8, 0, 19)}


class MySQL(Dialect, DeletesInBulk):
    """MySQL and MariaDB, on InnoDB.

    The connection's zone is UTC, whatever the server's: so a TIMESTAMP reads as UTC, and never twice in a night in
    autumn. A DATETIME has no zone; the mapping says which it is in.
    """

    name = "mysql"
    names = ("mysql", "mariadb")
    primary_key_index = PRIMARY_KEY
    driver = "pymysql"
    drivers: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("mysql", "mysql2", "mysql+pymysql", "mariadb", "mariadb+pymysql"), "mysql+pymysql"
    )
    explanations = (
        Explanation(("(1045,", "(1698,", "(1130,", "(1251,"), ConfigurationError, LOGIN_REFUSED),
        Explanation(("(1049,",), ConfigurationError, NO_SUCH_DATABASE),
        Explanation(("(1046,",), ConfigurationError, f"{DATABASE_URL_ENV} names no database"),
        Explanation(("(1044,", "(1142,", "(1143,", "(1227,", "(1370,"), ConfigurationError, NO_PRIVILEGE),
        Explanation(
            ("(1665,",),
            ConfigurationError,
            "the server writes its binary log by statement, which does not go with READ COMMITTED: set "
            "binlog_format to MIXED or ROW",
        ),
        Explanation(
            ("(1290,", "(1792,", "(1836,"),
            DatabaseUnavailableError,
            "the server is read-only: is it a replica, or is a fail-over under way?",
        ),
        Explanation(("(1040,",), DatabaseUnavailableError, "the server has too many connections"),
        *NETWORK,
    )
    deletes_returning = False

    def create_engine(self, url: URL, create_file: bool) -> sa.Engine:
        """READ COMMITTED: sees what applications have committed since, and locks no gaps between rows."""
        require_driver(self.driver, "mysql")
        if not set(url.query) <= _URL_OPTIONS:
            # Not repeated: what follows a question mark may be the end of a password.
            raise ConfigurationError(
                f"{DATABASE_URL_ENV}: a MySQL URL has an option other than {', '.join(sorted(_URL_OPTIONS))}; for TLS "
                "give ssl_ca, the path of the certificate authority's file"
            )
        engine = sa.create_engine(
            url,
            poolclass=NullPool,
            isolation_level="READ COMMITTED",
            connect_args={
                "charset": "utf8mb4",
                "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                # For a server that has gone silent; one that is only slow ends the statement first.
                "read_timeout": STATEMENT_TIMEOUT_SECONDS + CONNECT_TIMEOUT_SECONDS,
                "write_timeout": STATEMENT_TIMEOUT_SECONDS + CONNECT_TIMEOUT_SECONDS,
                "program_name": "session-policy",
            },
            **HIDDEN,
        )
        sa.event.listen(engine, "connect", _set_up)
        sa.event.listen(engine, "before_cursor_execute", _without_lock_wait, retval=True)
        return engine

    def cancel(self, engine: sa.Engine, driver_connection: Any) -> None:
        """By KILL QUERY from another connection, which the connection's own user may always do."""
        with engine.connect() as other:
            other.exec_driver_sql(f"KILL QUERY {int(driver_connection.thread_id())}")

    def lock(self, database: str | None, schema: str | None, table: str) -> Lock:
        """A named lock of the server."""
        return TableLock(schema, table)

    def presence(self, name: str) -> Lock:
        """A named lock of the server."""
        return presence_lock(name)

    def now(self, connection: sa.Connection) -> datetime | None:
        """In UTC, whatever zone anything is in."""
        moment: datetime = connection.execute(sa.text("SELECT UTC_TIMESTAMP(6)")).scalar_one()
        return moment.replace(tzinfo=UTC)

    def server_zone(self, connection: sa.Connection) -> str | None:
        """The server's; where that is its machine's, MySQL knows no more than an abbreviation such as CEST."""
        zone, system = connection.execute(sa.text("SELECT @@global.time_zone, @@system_time_zone")).one()
        return str(system if zone == "SYSTEM" else zone)

    def written_by_others(self, connection: sa.Connection, own: int) -> int:
        """In rows that were inserted, updated or deleted; the server counts those of each connection, too."""
        total, mine = (connection.exec_driver_sql(_WRITTEN.format(whose)).all() for whose in ("GLOBAL", "SESSION"))
        return sum(int(row[1]) for row in total) - sum(int(row[1]) for row in mine)

    def is_transient(self, original: BaseException) -> bool:
        """By error number."""
        return _number(original) in _TRANSIENT

    def is_refusal(self, original: BaseException) -> bool:
        """By error number."""
        return _number(original) in _REFUSALS

    def is_connection_lost(self, original: BaseException) -> bool:
        """By error number."""
        return _number(original) in _LOST

    def code(self, original: BaseException) -> str | None:
        """MySQL's error number."""
        number = _number(original)
        return f"error {number}" if number else None

    def insert(self, table: sa.Table, keys: Sequence[str], changes: Mapping[str, Any], adds: Collection[str]) -> Any:
        """ON DUPLICATE KEY UPDATE."""
        from sqlalchemy.dialects import mysql  # noqa: PLC0415 - only a run on MySQL needs it

        statement = mysql.insert(table)
        added = {name: table.c[name] + statement.inserted[name] for name in adds}
        return statement.on_duplicate_key_update({**changes, **added})

    def locking(self, query: sa.Select[Any], table: sa.TableClause, index: str | None) -> sa.Select[Any]:
        """By the index of the ids: a scan, which a small table invites, would lock rows that are not due.

        The query reads one table only, so FOR UPDATE needs no OF, which MariaDB does not know.
        """
        if index:
            query = query.with_hint(table, _force(index))
        return query.with_for_update(skip_locked=True)

    def delete(
        self,
        connection: sa.Connection,
        table: sa.TableClause,
        column: sa.ColumnElement[Any],
        ids: Collection[Any],
        index: str | None,
    ) -> None:
        """By the index of the ids: a scan would wait for rows that others have locked.

        For a list of ids a small table is scanned, whatever a hint says; joined with the ids it is not. The first half
        of the union finds nothing, but gives the ids the column's type and collation.
        """
        row = "" if _is_mariadb(connection) else "ROW"
        if not index or _version(connection) < _VALUES_SINCE[not row]:
            return super().delete(connection, table, column, ids, index)
        name = ".".join(_backquoted(part) for part in (table.schema, table.name) if part).replace(":", "\\:")
        key, by = (_backquoted(part).replace(":", "\\:") for part in (column.name, index))
        rows = ", ".join(f"{row}(:id{n})" for n in range(len(ids)))
        statement = sa.text(
            f"DELETE victim FROM (SELECT {key} AS id FROM {name} WHERE FALSE UNION ALL VALUES {rows}) AS due"  # noqa: S608
            f" STRAIGHT_JOIN {name} AS victim FORCE INDEX ({by}) ON victim.{key} = due.id"
        )
        binds = (sa.bindparam(f"id{n}", value, type_=column.type) for n, value in enumerate(ids))
        connection.execute(statement.bindparams(*binds))
        return None

    def layout(self, connection: sa.Connection, schema: str | None, table: str, id_index: str | None) -> TableLayout:
        """From information_schema; InnoDB's number of rows is an estimate."""
        rows = connection.scalar(_ROWS, {"schema": schema, "table": table})
        name = ".".join(_backquoted(part) for part in (schema, table) if part)
        shown = (
            connection.exec_driver_sql(f"SHOW INDEX FROM {name}".replace("%", "%%")).mappings()
            if rows is not None
            else ()
        )
        return TableLayout(
            rows=int(rows) if rows is not None else None,
            indexes={
                index["Column_name"]: index["Key_name"]
                for index in shown
                if index["Seq_in_index"] == 1
                and index["Index_type"] == "BTREE"
                and index["Sub_part"] is None
                and index.get("Visible", "YES") == "YES"
                and index.get("Ignored", "NO") == "NO"
            },
            # Only then is the id part of every other index, and rows of one time are in its order.
            no_index=None if id_index == PRIMARY_KEY else "the id is not the primary key",
            no_ranges=super().layout(connection, schema, table, id_index).no_ranges,
        )

    def estimate(self, connection: sa.Connection, query: sa.Select[Any]) -> int | None:
        """By EXPLAIN."""
        compiled = query.compile(dialect=connection.dialect)
        plan = connection.exec_driver_sql(f"EXPLAIN {compiled}", dict(compiled.params)).mappings().first()
        return int(plan["rows"]) if plan and plan["rows"] is not None else None

    def by_index(self, query: sa.Select[Any], table: sa.TableClause, index: str) -> sa.Select[Any]:
        """By a hint: with old statistics the server may prefer to read and sort everything, for each page."""
        return query.with_hint(table, _force(index))

    def bulk_delete(self, request: BulkDeleteRequest) -> BulkDeletePlan | None:
        """By ranges of ids; only MariaDB returns what it deletes, and has a lock wait timeout of 0."""
        return plan(request, lambda connection: _is_mariadb(connection) and _version(connection) >= _NO_WAIT_SINCE)

    def compact_time(self, column: sa.ColumnElement[Any], encoding: TimeEncoding) -> sa.ColumnElement[Any]:
        """The driver takes long to make a time of a text; a zero date is none."""
        microseconds = sa.func.timestampdiff(
            sa.literal_column("MICROSECOND"), sa.literal_column("'1970-01-01'"), column
        )
        return sa.case((column >= sa.literal(_FIRST_DATE, sa.DateTime()), microseconds))

    def exact(self, column: sa.ColumnElement[Any], kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
        """Most collations take upper and lower case for the same, and letters with and without accents."""
        if not isinstance(kind, sa.String):
            return column
        in_unicode = sa.func.convert(column.op("USING")(sa.literal_column("utf8mb4")), type_=sa.Text())
        return in_unicode.collate("utf8mb4_bin")

    def json_text(
        self, column: sa.ColumnElement[Any], path: Sequence[str], kind: sa.types.TypeEngine[Any]
    ) -> sa.ColumnElement[Any]:
        """By its own JSON functions, for what is JSON at all: MariaDB's type JSON is text, and so is many a column."""
        value = sa.func.json_extract(column, sa.literal(json_path(path)))
        wanted = sa.func.json_type(value).in_(["STRING", "INTEGER", "DOUBLE", "DECIMAL", "UNSIGNED INTEGER"])
        text = self.exact(sa.func.json_unquote(value, type_=sa.Text()), sa.Text())
        return sa.case((sa.func.json_valid(column) == sa.literal(1), sa.case((wanted, text))))

    def marked(self, column: sa.ColumnElement[Any], kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[bool]:
        """A zero date marks nothing."""
        if isinstance(kind, sa.DateTime):
            return sa.and_(column.is_not(None), column >= sa.literal(_FIRST_DATE, sa.DateTime()))
        return super().marked(column, kind)

    def instant(self, column: sa.ColumnElement[Any], encoding: TimeEncoding) -> sa.ColumnElement[Any]:
        """A zero date is none."""
        if encoding not in CLOCK_TIMES:
            return column
        return sa.case((column >= sa.literal(_FIRST_DATE, sa.DateTime()), column))

    def readable(self, column: sa.ColumnElement[Any], encoding: TimeEncoding) -> sa.ColumnElement[Any]:
        """A zero date is none."""
        return self.instant(column, encoding)

    def before(
        self, column: sa.ColumnElement[Any], encoding: TimeEncoding, bound: datetime | float | int
    ) -> sa.ColumnElement[bool]:
        """A zero date lies before nothing."""
        before = super().before(column, encoding, bound)
        if encoding not in CLOCK_TIMES:
            return before
        return sa.and_(column >= sa.literal(_FIRST_DATE, sa.DateTime()), before)

    def has_zone(self, kind: sa.types.TypeEngine[Any]) -> bool | None:
        """Whether the type is TIMESTAMP."""
        return isinstance(kind, sa.TIMESTAMP)

    def time_problem(self, kind: sa.types.TypeEngine[Any], encoding: TimeEncoding) -> str | None:
        """Encoding Timestamp also fits a DATETIME: then it holds UTC."""
        if problem := number_problem(kind, encoding):
            return problem
        if encoding is TimeEncoding.NAIVE_TIMESTAMP and self.has_zone(kind):
            return "a point in time, whatever the zone: use encoding Timestamp"
        return None

    def foreign_key_columns(self, connection: sa.Connection, schema: str | None, table: str) -> list[ForeignKeyColumn]:
        """From information_schema, as far as the user may see it."""
        rows = connection.execute(_REFERRING, {"schema": schema, "table": table})
        return [ForeignKeyColumn(r[0], r[1], r[2], r[3], r[4], r[5].upper(), bool(r[6])) for r in rows]

    def table_problem(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        """Locks and transactions are InnoDB's; before, no lock can be skipped."""
        engine = connection.scalar(
            sa.text(
                "SELECT engine FROM information_schema.tables"
                " WHERE table_schema = COALESCE(:schema, DATABASE()) AND table_name = :table"
            ),
            {"schema": schema, "table": table},
        )
        if engine and engine.lower() != "innodb":
            quote = connection.dialect.identifier_preparer.quote_identifier
            return (
                f"its engine {engine} has no transactions, so a session used at the last moment could be deleted: "
                f"ALTER TABLE {quote(table)} ENGINE = InnoDB"
            )
        if _version(connection) < _SKIP_LOCKED_SINCE[_is_mariadb(connection)]:
            return "the server is too old: MySQL 8.0.1 or MariaDB 10.6 or later can skip rows that are in use"
        return None


_ROWS = sa.text(
    "SELECT table_rows FROM information_schema.tables WHERE table_schema = COALESCE(:schema, DATABASE())"
    " AND table_name = :table AND table_type = 'BASE TABLE'"
)
_REFERRING = sa.text(
    """
    SELECT k.constraint_name, NULLIF(k.table_schema, DATABASE()), k.table_name, k.column_name, k.referenced_column_name,
           r.delete_rule, k.table_schema = k.referenced_table_schema AND k.table_name = k.referenced_table_name
      FROM information_schema.key_column_usage k
      JOIN information_schema.referential_constraints r
        ON r.constraint_schema = k.constraint_schema AND r.constraint_name = k.constraint_name
       AND r.table_name = k.table_name
     WHERE k.referenced_table_schema = COALESCE(:schema, DATABASE()) AND k.referenced_table_name = :table
     ORDER BY k.table_schema, k.table_name, k.constraint_name, k.ordinal_position
    """
)


def _is_mariadb(connection: sa.Connection) -> bool:
    return bool(getattr(connection.dialect, "is_mariadb", False))


def _version(connection: sa.Connection) -> tuple[Any, ...]:
    return connection.dialect.server_version_info or ()


def _backquoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _force(index: str) -> str:
    return f"FORCE INDEX ({_backquoted(index).replace('%', '%%')})"


def _number(original: BaseException) -> int | None:
    number = original.args[0] if original.args else None
    return number if isinstance(number, int) else None


def _without_lock_wait(
    _c: Any, _cursor: Any, statement: str, parameters: Any, context: sa.engine.ExecutionContext | None, _m: Any
) -> tuple[str, Any]:
    if context is not None and context.execution_options.get(BULK_DELETE):
        statement = f"SET STATEMENT innodb_lock_wait_timeout = 0 FOR {statement}"
    return statement, parameters


def _set_up(connection: Any, _record: object) -> None:
    is_mariadb = "mariadb" in connection.get_server_info().lower()
    settings = {
        "time_zone": "'+00:00'",
        "sql_mode": f"'{_STRICT}'",
        "innodb_lock_wait_timeout": LOCK_TIMEOUT_SECONDS,
        "lock_wait_timeout": CONNECT_TIMEOUT_SECONDS,
        **(_MARIADB_SETTINGS if is_mariadb else _MYSQL_SETTINGS),
    }
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION " + ", ".join(f"{name} = {value}" for name, value in settings.items()))
    connection.commit()
