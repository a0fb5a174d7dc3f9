"""Finds and deletes what has expired in one statement for each part of the table, and returns it.

Such a statement waits for nobody, or for a moment at most: a part with a row that somebody works on, or that refuses to
go, is left as it is, for its rows to be deleted by their ids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from job.database.blocks import BlockRanges
from job.database.compact import CompactColumns, CompactRows
from job.database.dialects.base import LOCK_TIMEOUT_SECONDS, SWEEPING, Layout
from job.database.narrowing import Expiry
from job.database.stretch import Stretch
from job.database.table import MappedTable
from job.database.walks import Fetch, within_ids

_LOCK_WAIT_MILLISECONDS = 20
"""Less than an application notices, and than any server takes to see a deadlock."""


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the table.

    Attributes:
        condition: whether a row lies in it.
        take: deletes what has expired in it, and returns that.
    """

    condition: sa.ColumnElement[bool]
    take: Callable[[sa.Connection], CompactRows]


class _Impatient:
    """Deletes parts of a table in PostgreSQL, without waiting for anybody for long."""

    def __init__(self, table: MappedTable, expired: sa.ColumnElement[bool]) -> None:
        self._table = table
        self._expired = expired

    def _part(self, condition: sa.ColumnElement[bool]) -> Part:
        return Part(condition, lambda connection: self._take(connection, condition))

    def _take(self, connection: sa.Connection, condition: sa.ColumnElement[bool]) -> CompactRows:
        # A row that was changed after the statement began is judged anew, by its new version, before it goes.
        columns = CompactColumns(self._table, connection.dialect)
        statement = _delete(self._table, columns, sa.and_(condition, self._expired))
        _wait_for_locks(connection, _LOCK_WAIT_MILLISECONDS)
        result = connection.execute(statement, execution_options={SWEEPING: True})
        _wait_for_locks(connection, LOCK_TIMEOUT_SECONDS * 1000)
        return _compact(result, columns)


class BlockSweep(_Impatient):
    """By ranges of blocks (PostgreSQL).

    Args:
        table: the session table.
        expired: whether a session has expired.
        stretch: which part of the table.
        layout: how the table lies on disk.
    """

    def __init__(self, table: MappedTable, expired: sa.ColumnElement[bool], stretch: Stretch, layout: Layout) -> None:
        super().__init__(table, expired)
        self._ranges = BlockRanges(stretch, layout)

    def next(self, size: int) -> Part | None:
        """The next so many blocks; None where there are no more."""
        condition = self._ranges.next(size)
        return None if condition is None else self._part(condition)


class IndexSweep(_Impatient):
    """By ranges of the indexes on the expiry columns, the oldest first (PostgreSQL).

    Args:
        table: the session table.
        expiry: what has expired.
        fetch: runs a query in a transaction of its own.
    """

    def __init__(self, table: MappedTable, expiry: Expiry, fetch: Fetch) -> None:
        super().__init__(table, expiry.expired)
        self._edges = list(expiry.edges)
        self._new: sa.ColumnElement[bool] = sa.true()
        self._after: sa.ColumnElement[bool] = sa.true()
        self._fetch = fetch

    def next(self, size: int) -> Part | None:
        """The rows that the next so many entries lead to; None where there are no more."""
        if not self._edges:
            return None
        edge, key, dialect = self._edges[0], self._table.id, self._table.dialect
        column = edge.time.column
        here = sa.tuple_(column, key)
        condition = sa.and_(edge.condition, self._new, self._after)
        last = sa.select(dialect.place(column).label("place"), key.label("id")).where(condition)
        found = self._fetch(last.order_by(column, key).offset(size - 1).limit(1))
        if found:
            at = dialect.at_place(found[0].place, self._table.types[edge.time.mapping.name])
            place = sa.tuple_(at, sa.literal(found[0].id, key.type))
            condition = sa.and_(condition, here <= place)
            # Not from the beginning: entries of rows that were just deleted stay in an index for a while.
            self._after = here > place
        else:
            self._edges.pop(0)
            # What this index led to was dealt with.
            self._new, self._after = sa.and_(self._new, edge.condition.is_not(sa.true())), sa.true()
        return self._part(condition)


class IdSweep:
    """By ranges of ids, in the order in which the table is kept (MariaDB).

    Args:
        table: the session table.
        expired: whether a session has expired.
        stretch: which part of the table.
        fetch: runs a query in a transaction of its own.
    """

    def __init__(self, table: MappedTable, expired: sa.ColumnElement[bool], stretch: Stretch, fetch: Fetch) -> None:
        self._table = table
        self._expired = expired
        self._rest: sa.ColumnElement[bool] | None = within_ids(table, stretch)
        self._within = self._rest
        self._fetch = fetch

    def next(self, size: int) -> Part | None:
        """The next so many rows; None where there are no more."""
        if self._rest is None:
            return None
        key, rest = self._table.id, self._rest
        query = sa.select(key.label("id")).where(rest).order_by(key).offset(size - 1).limit(1)
        found = self._fetch(self._table.dialect.by_index(query, self._table.clause, self._table.id_index or "PRIMARY"))
        if found:
            last = sa.literal(found[0].id, key.type)
            condition = sa.and_(rest, key <= last)
            self._rest = sa.and_(self._within, key > last)
        else:
            condition, self._rest = rest, None
        return Part(condition, lambda c: self._take(c, condition))

    def _take(self, connection: sa.Connection, condition: sa.ColumnElement[bool]) -> CompactRows:
        columns = CompactColumns(self._table, connection.dialect)
        statement = _delete(self._table, columns, sa.and_(condition, self._expired))
        # Row by row it takes the locks of all rows in the range, if only for a moment, and waits for none of them.
        result = connection.execute(statement, execution_options={SWEEPING: True})
        return _compact(result, columns)


Sweep = BlockSweep | IndexSweep | IdSweep


def _delete(table: MappedTable, columns: CompactColumns, condition: sa.ColumnElement[bool]) -> Any:
    return sa.delete(table.clause).where(condition, table.id.is_not(None)).returning(*columns.columns)


def _compact(result: sa.CursorResult[Any], columns: CompactColumns) -> CompactRows:
    """As the driver returns them: to wrap very many rows, and look at each column, takes longer than to fetch them."""
    cursor = result.cursor
    assert cursor is not None
    # What the server sent is here already; it can be taken apart while the server is at work on the next part.
    return CompactRows(cursor.rowcount, lambda: list(cursor.fetchall()), columns)


def _wait_for_locks(connection: sa.Connection, milliseconds: int) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {milliseconds}")
