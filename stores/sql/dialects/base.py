"""The interface of a kind of database: what differs from one to the other. Everything else is portable SQL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import URL

from policy.mapping import TimeEncoding
from policy.names import DATABASE_URL_ENV
from stores.model.errors import ConfigurationError, DatabaseUnavailableError, RunError
from stores.model.key_range import KeyRange
from stores.sql.dialects.lock import Lock

CONNECT_TIMEOUT_SECONDS = 10
LOCK_TIMEOUT_SECONDS = 2
"""A batch that waits longer than this for a lock is in an application's way: give up and try again."""
STATEMENT_TIMEOUT_SECONDS = 120

CLOCK_TIMES = (TimeEncoding.TIMESTAMP, TimeEncoding.NAIVE_TIMESTAMP)
"""Encodings that are a date and a time of day; the others are numbers."""

BULK_DELETE = "session_policy_bulk_delete"
"""Execution option of statements that delete a range of a table, and read what they return as the server sends it."""

# Parameters are session ids: they must not show in error messages.
HIDDEN: Mapping[str, Any] = {"hide_parameters": True}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the report says where a driver's error contains one of the needles.

    Attributes:
        needles: parts of the error's text, in lower case.
        kind: the error to raise.
        text: for people.
    """

    needles: tuple[str, ...]
    kind: type[RunError]
    text: str


@dataclass(frozen=True, slots=True)
class ForeignKeyColumn:
    """One column of a foreign key that points at a table.

    Attributes:
        constraint: name of the key; unique in its table.
        schema: of the table that has the key; None for the connection's.
        table: the table that has the key.
        column: its column.
        refers_to: the other table's column.
        on_delete: CASCADE, SET NULL, SET DEFAULT, RESTRICT or NO ACTION.
        is_itself: whether the table has the key itself.
    """

    constraint: str
    schema: str | None
    table: str
    column: str
    refers_to: str
    on_delete: str
    is_itself: bool


@dataclass(frozen=True, slots=True)
class TableLayout:
    """How large a table is and what indexes it has, by the database's own statistics.

    Attributes:
        rows: about how many; None where not known.
        blocks: exactly how many; None where ranges of them cannot be read.
        indexes: column -> an index that begins with it and has every row.
        no_index: why rows cannot be read in the order of such an index; None where they can.
        no_ranges: why ranges of blocks cannot be read; None where they can.
    """

    rows: int | None = None
    blocks: int | None = None
    indexes: Mapping[str, str] = field(default_factory=dict)
    no_index: str | None = None
    no_ranges: str | None = None


LOGIN_REFUSED = f"the database refused the login: check user and password in {DATABASE_URL_ENV}"
NO_SUCH_DATABASE = f"the database named in {DATABASE_URL_ENV} does not exist on the server"
NO_PRIVILEGE = (
    "the database user lacks a privilege: it needs SELECT, UPDATE and DELETE on the session table, and SELECT, INSERT, "
    "UPDATE and DELETE on the statistics tables"
)
TABLES_CHANGED = "a table or column is not, or no longer, what the policy and `session-policy init` say"
BAD_OPTION = f"{DATABASE_URL_ENV} has an option that cannot be used"
NETWORK = (
    Explanation(
        ("not known", "could not translate host name", "failed to resolve host", "name resolution"),
        DatabaseUnavailableError,
        "the database's host name does not resolve",
    ),
    Explanation(
        ("refused",), DatabaseUnavailableError, "the database refuses connections: is it up, and the port right?"
    ),
    Explanation(("timeout", "timed out"), DatabaseUnavailableError, "the database did not answer in time"),
)


class Dialect(ABC):
    """One kind of database.

    What a method is for is said here; where a package has its own, that one says how.

    Attributes:
        name: what people call it, in lower case.
        names: SQLAlchemy's names of it.
        driver: package of the driver; its errors come from there.
        drivers: the scheme of a URL -> SQLAlchemy's name of dialect and driver.
        explanations: the first that fits an error counts.
        deletes_returning: whether one statement can choose rows, delete them and return them.
        index_options: what makes SQLAlchemy reflect every index.
        primary_key_index: the name that the index of every primary key has; None where each has its own.
        has_column_types: whether a column holds values of its type only.
        max_parameters: how many parameters a statement may have; None where it is more than a batch ever needs.
        rests_after_transactions: whether others who write need a pause after each transaction, lest they never get
            their turn.
        compact_epoch: what :meth:`compact_time` counts from.
    """

    name: ClassVar[str]
    names: ClassVar[Collection[str]]
    driver: ClassVar[str]
    drivers: ClassVar[Mapping[str, str]]
    explanations: ClassVar[tuple[Explanation, ...]]
    deletes_returning: ClassVar[bool] = True
    index_options: ClassVar[Mapping[str, Any]] = {}
    primary_key_index: ClassVar[str | None] = None
    has_column_types: ClassVar[bool] = True
    max_parameters: ClassVar[int | None] = None
    rests_after_transactions: ClassVar[bool] = False
    compact_epoch: ClassVar[datetime] = datetime(1970, 1, 1)

    # --- connections ---------------------------------------------------------------------------------------------

    @abstractmethod
    def create_engine(self, url: URL, create_file: bool) -> sa.Engine:
        """An engine whose connections have timeouts, and see what others have committed since."""

    @abstractmethod
    def cancel(self, engine: sa.Engine, driver_connection: Any) -> None:
        """Ends the statement that is running on a connection of the engine, from another thread."""

    @abstractmethod
    def lock(self, database: str | None, schema: str | None, table: str) -> Lock:
        """The exclusive lock of a session table: the same one, however the table is written.

        Args:
            database: as in the URL.
            schema: of the table; None for the connection's search path.
            table: its name.
        """

    def presence(self, name: str) -> Lock | None:
        """The lock by which others know that a worker of this name is connected; None where a run cannot be shared."""
        return None

    def now(self, connection: sa.Connection) -> datetime | None:
        """The database's clock; None where it is this machine's."""
        return None

    def server_zone(self, connection: sa.Connection) -> str | None:
        """The zone of a connection that does not choose one, as the database names it; None where it does not."""
        return "UTC"

    def written_by_others(self, connection: sa.Connection, own: int) -> int | None:
        """How much others have written to the server, as a number that grows; None where the database does not count.

        What is counted, and since when, differs by database: only differences of two numbers mean something.

        Args:
            connection: to the database.
            own: how many transactions on this connection have written.
        """
        return None

    # --- errors --------------------------------------------------------------------------------------------------

    @abstractmethod
    def is_transient(self, original: BaseException) -> bool:
        """Whether the same statement may succeed when it is tried again."""

    @abstractmethod
    def is_refusal(self, original: BaseException) -> bool:
        """Whether a constraint, a trigger or data that does not fit prevents the change of a particular row."""

    @abstractmethod
    def is_connection_lost(self, original: BaseException) -> bool:
        """Whether the connection is gone, where SQLAlchemy does not know."""

    @abstractmethod
    def code(self, original: BaseException) -> str | None:
        """The database's own code of an error, for people to search for."""

    def error_text(self, original: BaseException) -> str:
        """The text of an error, in lower case, in which the needles of :attr:`explanations` are looked for."""
        return f"{original} {self.code(original)}".lower()

    # --- statements ----------------------------------------------------------------------------------------------

    @abstractmethod
    def insert(self, table: sa.Table, keys: Sequence[str], changes: Mapping[str, Any], adds: Collection[str]) -> Any:
        """An INSERT that changes the row that is there already.

        Args:
            table: one of the product's own.
            keys: its primary key.
            changes: columns that are replaced, and by what.
            adds: columns to which the new value is added.
        """

    def add_rows(
        self,
        connection: sa.Connection,
        table: sa.Table,
        keys: Sequence[str],
        same: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
        adds: Collection[str],
    ) -> None:
        """Inserts rows; to the row that is there already, the new values are added.

        Args:
            connection: to the database.
            table: one of the product's own.
            keys: its primary key.
            same: columns that have one value in all rows.
            rows: the other columns of each.
            adds: columns to which the new value is added.
        """
        connection.execute(self.insert(table, keys, {}, adds), [{**same, **row} for row in rows])

    def locking(self, query: sa.Select[Any], table: sa.TableClause, index: str | None) -> sa.Select[Any]:
        """The query, locking the table's rows that it finds; rows that others have locked are skipped.

        Args:
            query: finds rows by their ids.
            table: whose rows.
            index: of the ids; None where it has no name.
        """
        return query.with_for_update(of=table, skip_locked=True)

    def delete(
        self,
        connection: sa.Connection,
        table: sa.TableClause,
        column: sa.ColumnElement[Any],
        ids: Collection[Any],
        index: str | None,
    ) -> None:
        """Deletes rows by their ids; touches no others.

        Args:
            connection: to the database.
            table: whose rows.
            column: of the ids.
            ids: of the rows.
            index: of the ids; None where it has no name.
        """
        connection.execute(sa.delete(table).where(self.id_in(column, ids)))

    def id_in(self, column: sa.ColumnElement[Any], ids: Collection[Any]) -> sa.ColumnElement[bool]:
        """Whether the id is one of these."""
        return one_of(column, ids)

    def exact(self, column: sa.ColumnElement[Any], kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
        """The column, so that only equal texts are equal: two users must never be taken for one."""
        return column

    @abstractmethod
    def json_text(
        self, column: sa.ColumnElement[Any], path: Sequence[str], kind: sa.types.TypeEngine[Any]
    ) -> sa.ColumnElement[Any]:
        """The text or number at a path in a JSON column, as text; NULL where there is none."""

    def json_problem(self, kind: sa.types.TypeEngine[Any], path: Sequence[str]) -> str | None:
        """Why this path cannot be read from a column of this type; None where it can."""
        return None

    def marked(self, column: sa.ColumnElement[Any], kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[bool]:
        """Whether a flag column marks a session: true, a number other than 0, any time, any text but the empty one."""
        if isinstance(kind, sa.Boolean):
            return column.is_(sa.true())
        if isinstance(kind, sa.Integer | sa.Numeric | sa.Float):
            return sa.and_(column.is_not(None), column != sa.literal(0))
        if isinstance(kind, sa.String):
            return sa.and_(column.is_not(None), column != sa.literal(""))
        return column.is_not(None)

    def text_length(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
        """How many characters a text has."""
        return sa.func.char_length(column, type_=sa.Integer())

    def text(self, column: sa.ColumnElement[Any], kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
        """The column as text, for clients and addresses."""
        return column if isinstance(kind, sa.String) else sa.cast(column, sa.Text)

    # --- finding what has expired --------------------------------------------------------------------------------

    def layout(self, connection: sa.Connection, schema: str | None, table: str, id_index: str | None) -> TableLayout:
        """How large the table is, and what indexes it has.

        Args:
            connection: to the database.
            schema: of the table; None for the connection's.
            table: its name.
            id_index: of the ids; None where it has no name.
        """
        return TableLayout(
            no_index=f"{self.name} is read by ids only", no_ranges=f"{self.name} has no ranges of blocks"
        )

    def estimate(self, connection: sa.Connection, query: sa.Select[Any]) -> int | None:
        """How many rows the planner expects a query to find; None where the database has no such estimate."""
        return None

    def by_index(self, query: sa.Select[Any], table: sa.TableClause, index: str) -> sa.Select[Any]:
        """The query, read in the order of an index."""
        return query

    def keyset_value(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """The column in a form that :meth:`keyset_literal` takes back unchanged, to go on after a row."""
        return column

    def keyset_literal(self, value: Any, kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
        """A value that :meth:`keyset_value` read, exactly."""
        return sa.literal(value)

    def block_ranges(self, key_range: KeyRange, layout: TableLayout) -> Iterator[sa.ColumnElement[bool]]:
        """Conditions, one for each range of blocks: whether a row lies in it.

        Only where :attr:`TableLayout.no_ranges` is None.

        Args:
            key_range: all of the blocks.
            layout: of the table.
        """
        raise NotImplementedError

    def reads_in_bulk(self, kind: sa.types.TypeEngine[Any]) -> bool:
        """Whether values of this type can be read with the execution option :data:`BULK_DELETE`."""
        return isinstance(kind, sa.String | sa.Integer | sa.Uuid) and not isinstance(kind, sa.Enum)

    def compact_time(self, column: sa.ColumnElement[Any], encoding: TimeEncoding) -> sa.ColumnElement[Any]:
        """A date and time of day as microseconds since :attr:`compact_epoch`; a time may lie outside Python's calendar.

        Only for statements with the execution option :data:`BULK_DELETE`.
        """
        raise NotImplementedError

    def materialized(self, query: sa.CTE) -> sa.CTE:
        """The query of a WITH, run by itself: what is around it does not change how its rows are found."""
        return query

    # --- times ---------------------------------------------------------------------------------------------------

    def instant(self, column: sa.ColumnElement[Any], encoding: TimeEncoding) -> sa.ColumnElement[Any]:
        """What can be compared and ordered; NULL where the column holds no point in time."""
        return column

    def ordered(self, column: sa.ColumnElement[Any], encoding: TimeEncoding) -> sa.ColumnElement[Any]:
        """What to order times by: the column itself, which an index may serve, where it is in the order of time."""
        return column

    def readable(self, column: sa.ColumnElement[Any], encoding: TimeEncoding) -> sa.ColumnElement[Any]:
        """What can be decoded; NULL for times that Python cannot represent."""
        return column

    def before(
        self, column: sa.ColumnElement[Any], encoding: TimeEncoding, bound: datetime | float | int
    ) -> sa.ColumnElement[bool]:
        """Whether the stored time is less than a bound; NULL where there is none. An index on the column serves it."""
        if encoding not in CLOCK_TIMES:
            return column < sa.literal(bound)
        return column < sa.literal(bound, sa.DateTime(timezone=encoding is TimeEncoding.TIMESTAMP))

    def base_type(self, kind: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
        """The type itself, or what it is a domain of."""
        return kind

    @abstractmethod
    def has_zone(self, kind: sa.types.TypeEngine[Any]) -> bool | None:
        """Whether times of this type are points in time, rather than readings of a clock somewhere.

        None where each value says so itself.
        """

    @abstractmethod
    def time_problem(self, kind: sa.types.TypeEngine[Any], encoding: TimeEncoding) -> str | None:
        """Why a column of this type cannot hold times in this encoding; None where it can."""

    # --- advice --------------------------------------------------------------------------------------------------

    @abstractmethod
    def foreign_key_columns(self, connection: sa.Connection, schema: str | None, table: str) -> list[ForeignKeyColumn]:
        """The foreign keys that point at a table, column by column; from the catalogue, not table by table."""

    def table_problem(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        """Why sessions in this table cannot be deleted safely, besides its columns; None where they can."""
        return None

    def create_index(self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str]) -> str:
        """DDL for an index, without standing in the way of those who write meanwhile."""
        return self._create_index(connection, schema, table, columns, "CREATE INDEX")

    def _create_index(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str], how: str
    ) -> str:
        quote = connection.dialect.identifier_preparer.quote_identifier
        name = quote("_".join([table, *columns, "idx"])[: connection.dialect.max_identifier_length])
        where = ".".join(quote(part) for part in (schema, table) if part)
        return f"{how} {name} ON {where} ({', '.join(map(quote, columns))})"


def one_of(column: sa.ColumnElement[Any], values: Collection[Any]) -> sa.ColumnElement[bool]:
    """Whether the column has one of these values. A parameter is not named after its column: that may have any name."""
    return column.in_(sa.bindparam("values", list(values), expanding=True, unique=True, type_=column.type))


def json_path(path: Sequence[str]) -> str:
    """A path of plain member names, quoted for JSON functions that take it as ``$."a"."b"``."""
    return "$" + "".join('."' + part.replace("\\", "\\\\").replace('"', '\\"') + '"' for part in path)


def number_problem(kind: sa.types.TypeEngine[Any], encoding: TimeEncoding) -> str | None:
    """Why a column that holds times as numbers, or should not, has the wrong type."""
    is_number = isinstance(kind, sa.Integer | sa.Numeric | sa.Float)
    if encoding not in CLOCK_TIMES:
        return None if is_number else f"encoding {encoding} needs a number"
    if not isinstance(kind, sa.DateTime):
        return f"encoding {encoding} needs a timestamp (for numbers choose EpochSeconds, …)"
    return None


DRIVER_MISSING = "the driver for this database is not installed: pip install 'session-policy-operator[{extra}]'"


def require_driver(package: str, extra: str) -> None:
    """Checks that a driver is installed.

    Raises:
        ConfigurationError: the package is not installed.
    """
    from importlib.util import find_spec  # noqa: PLC0415 - most databases need no such question

    if find_spec(package) is None:
        raise ConfigurationError(DRIVER_MISSING.format(extra=extra))
