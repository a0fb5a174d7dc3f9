"""Finds and deletes what has expired in one statement for each part of the table.

The statement returns the deleted sessions where somebody is to be told of each; else, where the server can do that, it
counts them itself, and adds them to the history of their users.

Such a statement waits for nobody, or for a moment at most: a part with a row that somebody works on, or that refuses to
go, is left as it is, for its rows to be deleted by their ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from stores.model.key_range import KeyRange
from stores.model.sessions import Cause, DeletionTotals
from stores.sql.dialects.base import BULK_DELETE, LOCK_TIMEOUT_SECONDS, Layout
from stores.sql.mapping.expiry import Expiry, IndexBound
from stores.sql.mapping.table import MappedTable
from stores.sql.removal.block_ranges import BlockRanges, Blocks, at_places, in_blocks, lies_at, named, place
from stores.sql.removal.deleted_rows import CompactColumns, CompactRows
from stores.sql.removal.deletion_totals import read_sums, seconds_between, summed, tells_durations
from stores.sql.removal.history import DeletionRecorder
from stores.sql.removal.scans import Fetch, within_ids

_OPTIONS = {BULK_DELETE: True}
_LOCK_WAIT_MILLISECONDS = 20
"""Less than an application notices, and than any server takes to see a deadlock."""


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the table.

    Attributes:
        condition: makes the condition that a row lies in it, which few parts need.
        take: deletes what has expired in it, and returns that.
        notes_history: whether that also adds it to the history of users.
    """

    condition: Callable[[], sa.ColumnElement[bool]]
    take: Callable[[sa.Connection], CompactRows | DeletionTotals]
    notes_history: bool = False


_Delete = Callable[[sa.Connection], CompactRows | DeletionTotals]


class _Impatient:
    """Deletes parts of a table in PostgreSQL, without waiting for anybody for long.

    Args:
        table: the session table.
        expired: whether a session has expired.
        ledger: what else is written in the same transaction; None for nothing.
        tells_each: whether somebody is to be told of each deleted session.
    """

    def __init__(
        self, table: MappedTable, expired: sa.ColumnElement[bool], ledger: DeletionRecorder | None, *, tells_each: bool
    ) -> None:
        self._table = table
        self._expired = expired
        self._seconds = seconds = seconds_between(table)
        shared = ledger is not None and ledger.is_shared
        history = ledger.history if ledger and table.user_id is not None else None
        # Others who write the same rows of the history would have to be waited for.
        self._history = None if shared or seconds is None else history
        self._notes_history = history is None or self._history is not None
        self._tells_each = tells_each or seconds is None or not self._notes_history
        self._writes_more = shared or not self._notes_history

    def _part(self, condition: Callable[[], sa.ColumnElement[bool]], delete: _Delete) -> Part:
        return Part(condition, lambda c: self._take(c, delete), self._notes_history)

    def _take(self, connection: sa.Connection, delete: _Delete) -> CompactRows | DeletionTotals:
        # A row that was changed after a statement began is judged anew, by its new version, before it goes.
        _wait_for_locks(connection, _LOCK_WAIT_MILLISECONDS)
        taken = delete(connection)
        if self._writes_more:
            _wait_for_locks(connection, LOCK_TIMEOUT_SECONDS * 1000)
        return taken

    def _statement(
        self, condition: sa.ColumnElement[bool], columns: CompactColumns, *, tells_ids: bool = True
    ) -> sa.Executable:
        """What deletes, and tells each of the deleted or sums them up."""
        doomed = _doomed(self._table, sa.and_(condition, self._expired))
        told = columns.columns
        if self._tells_each and self._history is None:
            return doomed.returning(*told)
        assert self._seconds is not None
        wanted = {"id": tells_ids, "user_id": self._history is not None}
        returned = told if self._tells_each else [each for each in told if wanted.get(each.name)]
        gone = doomed.returning(*returned, self._seconds.label("seconds")).cte("gone")
        if self._tells_each:
            query = sa.select(*(gone.c[each.name] for each in told))
        else:
            query = summed(gone, self._table.id if tells_ids else None)
        if self._history:
            query = query.add_cte(self._history.adding(gone, Cause.EXPIRED, self._table.dialect).cte("noted"))
        return query

    def _read(
        self, result: sa.CursorResult[Any], columns: CompactColumns, some_ids: Sequence[Any] | None = None
    ) -> CompactRows | DeletionTotals:
        """What :meth:`_statement` has returned; with the ids of a few of the rows where it was not to tell them."""
        return _compact(result, columns) if self._tells_each else read_sums(result.one(), some_ids)


class _Prepared(_Impatient, ABC):
    """With one statement for all parts, which bind their own values to it."""

    _prepared: tuple[sa.Executable, CompactColumns] | None = None

    @abstractmethod
    def _prepare(self, columns: CompactColumns) -> sa.Executable:
        """The statement."""

    def _execute(
        self, connection: sa.Connection, values: Mapping[str, str]
    ) -> tuple[sa.CursorResult[Any], CompactColumns]:
        # Once, because to put together such a statement takes as long as a short one.
        if self._prepared is None:
            columns = CompactColumns(self._table, connection.dialect)
            self._prepared = self._prepare(columns), columns
        statement, columns = self._prepared
        return connection.execute(statement, values, execution_options=_OPTIONS), columns


class BlockRangeDelete(_Prepared):
    """By ranges of blocks (PostgreSQL).

    Args:
        table: the session table.
        expired: whether a session has expired.
        key_range: which part of the table.
        layout: how the table lies on disk.
        ledger: what else is written in the same transaction; None for nothing.
        tells_each: whether somebody is to be told of each deleted session.
    """

    def __init__(
        self,
        table: MappedTable,
        expired: sa.ColumnElement[bool],
        key_range: KeyRange,
        layout: Layout,
        ledger: DeletionRecorder | None,
        *,
        tells_each: bool,
    ) -> None:
        super().__init__(table, expired, ledger, tells_each=tells_each)
        self._ranges = BlockRanges(key_range, layout)
        # Where nothing more is known of each row, to return but a number for it would be a third of the cost.
        self._only_counts = not self._tells_each and self._history is None and not tells_durations(table)
        key = table.id
        one = sa.select(key, sa.cast(place, sa.Text)).where(in_blocks, expired, key.is_not(None)).limit(1)
        self._one_of = one.with_for_update()

    def next(self, size: int) -> Part | None:
        """The next so many blocks; None where there are no more."""
        blocks = self._ranges.next(size)
        return self._part(lambda: blocks.condition, lambda c: self._delete(c, blocks)) if blocks else None

    def _prepare(self, columns: CompactColumns) -> sa.Executable:
        if self._only_counts:
            return _doomed(self._table, sa.and_(in_blocks, self._expired))
        return self._statement(in_blocks, columns, tells_ids=False)

    def _delete(self, connection: sa.Connection, blocks: Blocks) -> CompactRows | DeletionTotals:
        some_ids: Sequence[Any] = ()
        if not self._tells_each and not (some_ids := self._hold_one(connection, blocks)):
            return DeletionTotals(0, 0, 0.0, ())
        result, columns = self._execute(connection, blocks.values)
        if self._only_counts:
            return DeletionTotals(result.rowcount, 0, 0.0, some_ids)
        return self._read(result, columns, some_ids)

    def _hold_one(self, connection: sa.Connection, blocks: Blocks) -> Sequence[Any]:
        """Locks one of the rows that are to go, and tells its id: it goes if they go, and stays if they stay.

        To have the statement that deletes them return the id of each costs more.
        """
        while found := connection.execute(self._one_of, blocks.values).first():
            # Older servers also yield one that was changed while it was waited for, and lies elsewhere now.
            if blocks.holds(found[1]):
                return (found[0],)
        return ()


class RowLocationDelete(_Prepared):
    """By the places of the rows that had expired when somebody looked (PostgreSQL).

    A row that was changed since lies elsewhere. Whatever lies in a place by now is judged when it is to be deleted.

    Args:
        table: the session table.
        expired: whether a session has expired.
        places: where they lie.
        ledger: what else is written in the same transaction; None for nothing.
        tells_each: whether somebody is to be told of each deleted session.
    """

    def __init__(
        self,
        table: MappedTable,
        expired: sa.ColumnElement[bool],
        places: Sequence[str],
        ledger: DeletionRecorder | None,
        *,
        tells_each: bool,
    ) -> None:
        super().__init__(table, expired, ledger, tells_each=tells_each)
        self._places = places
        self._next = 0

    def next(self, size: int) -> Part | None:
        """The next so many places; None where there are no more."""
        places = self._places[self._next : self._next + size]
        self._next += len(places)
        return self._part(lambda: lies_at(places), lambda c: self._delete(c, places)) if places else None

    def _prepare(self, columns: CompactColumns) -> sa.Executable:
        return self._statement(at_places, columns)

    def _delete(self, connection: sa.Connection, places: Sequence[str]) -> CompactRows | DeletionTotals:
        return self._read(*self._execute(connection, named(places)))


class IndexRangeDelete(_Impatient):
    """By ranges of the indexes on the expiry columns, the oldest first (PostgreSQL).

    Args:
        table: the session table.
        expiry: what has expired.
        fetch: runs a query in a transaction of its own.
        ledger: what else is written in the same transaction; None for nothing.
        tells_each: whether somebody is to be told of each deleted session.
    """

    def __init__(
        self, table: MappedTable, expiry: Expiry, fetch: Fetch, ledger: DeletionRecorder | None, *, tells_each: bool
    ) -> None:
        super().__init__(table, expiry.expired, ledger, tells_each=tells_each)
        self._index_bounds = list(expiry.index_bounds)
        self._new: sa.ColumnElement[bool] = sa.true()
        self._after: sa.ColumnElement[bool] = sa.true()
        self._from: Any = None
        self._fetch = fetch

    def next(self, size: int) -> Part | None:
        """The rows that the next so many entries lead to; None where there are no more."""
        while self._index_bounds:
            bound = self._index_bounds[0]
            entries, following = self._look_ahead(bound, size)
            condition = sa.and_(bound.condition, self._new, self._after)
            if entries > size:
                return self._where(sa.and_(condition, self._up_to(bound, condition, following, size)))
            self._index_bounds.pop(0)
            # What this index led to was dealt with.
            self._new = sa.and_(self._new, bound.condition.is_not(sa.true()))
            self._after, self._from = sa.true(), None
            if entries:
                return self._where(condition)
        return None

    def _where(self, condition: sa.ColumnElement[bool]) -> Part:
        def delete(connection: sa.Connection) -> CompactRows | DeletionTotals:
            columns = CompactColumns(self._table, connection.dialect)
            result = connection.execute(self._statement(condition, columns), execution_options=_OPTIONS)
            return self._read(result, columns)

        return self._part(lambda: condition, delete)

    def _look_ahead(self, bound: IndexBound, size: int) -> tuple[int, Any]:
        """How many entries there are, one more than the size at most, and the time in the last of these.

        The index alone answers this, as far as vacuum has been there since the rows were changed.
        """
        column, place = bound.time.column, self._table.dialect.keyset_value
        some = sa.select(column.label("at")).where(bound.condition, self._after).order_by(column).limit(size + 1)
        entries = some.subquery("entries")
        counted = sa.select(sa.func.count().label("number"), place(sa.func.max(entries.c.at)).label("last"))
        (row,) = self._fetch(counted.select_from(entries))
        return row.number, row.last

    def _up_to(
        self, bound: IndexBound, condition: sa.ColumnElement[bool], following: Any, size: int
    ) -> sa.ColumnElement[bool]:
        """Whether a row comes before the time that follows so many entries, which are not looked at again."""
        column, key, dialect = bound.time.column, self._table.id, self._table.dialect
        kind = self._table.types[bound.time.mapping.name]
        at = dialect.keyset_literal(following, kind)
        if following != self._from:
            self._from, self._after = following, column >= at
            return column < at
        # More sessions than may go at once have one and the same time: their ids tell them apart.
        last = sa.select(key.label("id")).where(condition, column == at).order_by(key).offset(size - 1).limit(1)
        found = self._fetch(last)
        if not found:
            self._from, self._after = None, column > at
            return column == at
        here = sa.literal(found[0].id, key.type)
        self._after = sa.and_(column >= at, sa.or_(column > at, key > here))
        return sa.and_(column == at, key <= here)


class IdRangeDelete:
    """By ranges of ids, in the order in which the table is kept (MariaDB).

    Args:
        table: the session table.
        expired: whether a session has expired.
        key_range: which part of the table.
        fetch: runs a query in a transaction of its own.
    """

    def __init__(self, table: MappedTable, expired: sa.ColumnElement[bool], key_range: KeyRange, fetch: Fetch) -> None:
        self._table = table
        self._expired = expired
        self._rest: sa.ColumnElement[bool] | None = within_ids(table, key_range)
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
        return Part(lambda: condition, lambda c: self._take(c, condition))

    def _take(self, connection: sa.Connection, condition: sa.ColumnElement[bool]) -> CompactRows:
        columns = CompactColumns(self._table, connection.dialect)
        statement = _doomed(self._table, sa.and_(condition, self._expired)).returning(*columns.columns)
        # Row by row it takes the locks of all rows in the range, if only for a moment, and waits for none of them.
        result = connection.execute(statement, execution_options=_OPTIONS)
        return _compact(result, columns)


Sweep = BlockRangeDelete | RowLocationDelete | IndexRangeDelete | IdRangeDelete


def _doomed(table: MappedTable, condition: sa.ColumnElement[bool]) -> sa.Delete:
    return sa.delete(table.clause).where(condition, table.id.is_not(None))


def _compact(result: sa.CursorResult[Any], columns: CompactColumns) -> CompactRows:
    """As the driver returns them: to wrap very many rows, and look at each column, takes longer than to fetch them."""
    cursor = result.cursor
    assert cursor is not None
    # What the server sent is here already; it can be taken apart while the server is at work on the next part.
    return CompactRows(cursor.rowcount, lambda: list(cursor.fetchall()), columns)


def _wait_for_locks(connection: sa.Connection, milliseconds: int) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {milliseconds}")
