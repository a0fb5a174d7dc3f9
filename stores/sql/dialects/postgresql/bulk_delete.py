"""Deletes in bulk, by ranges of blocks, by row locations or by ranges of an index.

See :mod:`stores.sql.removal.bulk_delete`; here, what need not be reported one by one is counted by the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from stores.model.key_range import KeyRange, Strategy
from stores.model.sessions import DeletionTotals
from stores.sql.connection.connect import is_transient
from stores.sql.dialects.base import TableLayout
from stores.sql.dialects.postgresql.block_ranges import (
    BlockRanges,
    Blocks,
    at_locations,
    blocks_with,
    in_blocks,
    lies_at,
    location_values,
    row_location,
)
from stores.sql.dialects.postgresql.bulk_statements import PostgreSQLBulkDelete, PreparedBulkDelete
from stores.sql.dialects.postgresql.deletion_totals import has_durations
from stores.sql.dialects.postgresql.row_locations import (
    few_by_index,
    few_in_blocks,
    find_row_locations,
    max_per_statement,
)
from stores.sql.mapping.expiry import Expiry, IndexBound
from stores.sql.mapping.table import MappedTable
from stores.sql.removal.bulk_delete import (
    BULK_OPTIONS,
    MAX_ROWS_IN_MEMORY,
    BulkDelete,
    BulkDeletePlan,
    BulkDeleteRequest,
    Deleted,
    RangeDelete,
    delete_expired,
)
from stores.sql.removal.deleted_rows import CompactColumns
from stores.sql.removal.history import DeletionRecorder
from stores.sql.removal.scans import Fetch
from stores.waiting.pacing import Pace

# Of a range, in blocks of 8 KB: what has expired in it is held in memory.
_MAX_BLOCKS = 2048


def plan(request: BulkDeleteRequest) -> BulkDeletePlan | None:
    """How to delete a part of the table in bulk; None where it is to be deleted by ids."""
    table, expired, layout = request.table, request.expiry.expired, request.layout
    recorder, reports_each = request.recorder, request.reports_each
    deletes: BulkDelete
    if (locations := _row_locations(request)) is not None:
        deletes = RowLocationDelete(table, expired, locations, recorder, reports_each=reports_each)
        most = min(request.pace.most, max_per_statement(layout))
        return BulkDeletePlan(deletes, Pace(min(request.batch_size, most), min(request.pace.least, most), most))
    if request.key_range.strategy is Strategy.PHYSICAL_RANGES:
        deletes = BlockRangeDelete(table, expired, request.key_range, layout, recorder, reports_each=reports_each)
        # What has expired in any range is held in memory, unless there is not much of it anywhere.
        is_little = request.expired is not None and request.expired <= MAX_ROWS_IN_MEMORY
        most = max(_MAX_BLOCKS, layout.blocks or 0) if is_little else _MAX_BLOCKS
        return BulkDeletePlan(deletes, Pace(blocks_with(request.batch_size, request.expired, layout), 1, most))
    if request.key_range.strategy is Strategy.EXPIRY_INDEX:
        deletes = IndexRangeDelete(table, request.expiry, request.fetch, recorder, reports_each=reports_each)
        return BulkDeletePlan(deletes, request.pace)
    return None


def _row_locations(request: BulkDeleteRequest) -> list[str] | None:
    """Where all expired sessions lie; None where only a part of the table is wanted, or they are not few."""
    by_index = request.key_range.strategy is Strategy.EXPIRY_INDEX
    if by_index:
        few = few_by_index(request.index_entries(), request.layout)
    else:
        whole = request.key_range == KeyRange(Strategy.PHYSICAL_RANGES)
        few = whole and few_in_blocks(request.expired, request.layout)
    if not few:
        return None
    # The other processors are for the applications that are at work.
    spread = not request.writers_are_busy
    try:
        return request.connection.transaction(
            lambda c: find_row_locations(c, request.table, request.expiry, by_index=by_index, spread=spread),
            retry_transient=False,
        )
    except sa.exc.DBAPIError as error:
        if is_transient(error):
            return None  # it took too long
        raise


class BlockRangeDelete(PreparedBulkDelete):
    """By ranges of blocks.

    Args:
        table: the session table.
        expired: whether a session has expired.
        key_range: which part of the table.
        layout: how the table lies on disk.
        recorder: what else is written in the same transaction; None for nothing.
        reports_each: whether each deleted session is to be reported.
    """

    def __init__(
        self,
        table: MappedTable,
        expired: sa.ColumnElement[bool],
        key_range: KeyRange,
        layout: TableLayout,
        recorder: DeletionRecorder | None,
        *,
        reports_each: bool,
    ) -> None:
        super().__init__(table, expired, recorder, reports_each=reports_each)
        self._ranges = BlockRanges(key_range, layout)
        # Where nothing more is known of a row, returning even a number for each would be a third of the cost.
        self._only_counts = not self._reports_each and self._history is None and not has_durations(table)
        key = table.id
        one = sa.select(key, sa.cast(row_location, sa.Text)).where(in_blocks, expired, key.is_not(None)).limit(1)
        self._one_of = one.with_for_update()

    def next(self, size: int) -> RangeDelete | None:
        """The next so many blocks; None where there are no more."""
        blocks = self._ranges.next(size)
        return self._range_delete(lambda: blocks.condition, lambda c: self._delete(c, blocks)) if blocks else None

    def _prepare(self, columns: CompactColumns) -> sa.Executable:
        if self._only_counts:
            return delete_expired(self._table, sa.and_(in_blocks, self._expired))
        return self._statement(in_blocks, columns, returns_ids=False)

    def _delete(self, connection: sa.Connection, blocks: Blocks) -> Deleted:
        some_ids: Sequence[Any] = ()
        if not self._reports_each and not (some_ids := self._lock_one(connection, blocks)):
            return DeletionTotals(0, 0, 0.0, ())
        result, columns = self._execute(connection, blocks.values)
        if self._only_counts:
            return DeletionTotals(result.rowcount, 0, 0.0, some_ids)
        return self._read(result, columns, some_ids)

    def _lock_one(self, connection: sa.Connection, blocks: Blocks) -> Sequence[Any]:
        """Locks one of the rows that are to go, and returns its id: it goes if they go, and stays if they stay.

        Having the statement that deletes them return the id of each would cost more.
        """
        while found := connection.execute(self._one_of, blocks.values).first():
            # Older servers also yield one that was changed while it was waited for, and lies elsewhere now.
            if blocks.holds(found[1]):
                return (found[0],)
        return ()


class RowLocationDelete(PreparedBulkDelete):
    """By the locations of the rows that had expired when they were looked for.

    A row that was changed since lies elsewhere. Whatever lies at a location by now is judged when it is to be deleted.

    Args:
        table: the session table.
        expired: whether a session has expired.
        locations: where they lie.
        recorder: what else is written in the same transaction; None for nothing.
        reports_each: whether each deleted session is to be reported.
    """

    def __init__(
        self,
        table: MappedTable,
        expired: sa.ColumnElement[bool],
        locations: Sequence[str],
        recorder: DeletionRecorder | None,
        *,
        reports_each: bool,
    ) -> None:
        super().__init__(table, expired, recorder, reports_each=reports_each)
        self._locations = locations
        self._next = 0

    def next(self, size: int) -> RangeDelete | None:
        """The next so many locations; None where there are no more."""
        locations = self._locations[self._next : self._next + size]
        self._next += len(locations)
        return (
            self._range_delete(lambda: lies_at(locations), lambda c: self._delete(c, locations)) if locations else None
        )

    def _prepare(self, columns: CompactColumns) -> sa.Executable:
        return self._statement(at_locations, columns)

    def _delete(self, connection: sa.Connection, locations: Sequence[str]) -> Deleted:
        return self._read(*self._execute(connection, location_values(locations)))


class IndexRangeDelete(PostgreSQLBulkDelete):
    """By ranges of the indexes on the expiry columns, the oldest first.

    Args:
        table: the session table.
        expiry: what has expired.
        fetch: runs a query in a transaction of its own.
        recorder: what else is written in the same transaction; None for nothing.
        reports_each: whether each deleted session is to be reported.
    """

    def __init__(
        self, table: MappedTable, expiry: Expiry, fetch: Fetch, recorder: DeletionRecorder | None, *, reports_each: bool
    ) -> None:
        super().__init__(table, expiry.expired, recorder, reports_each=reports_each)
        self._index_bounds = list(expiry.index_bounds)
        self._unseen: sa.ColumnElement[bool] = sa.true()
        self._after: sa.ColumnElement[bool] = sa.true()
        self._from: Any = None
        self._fetch = fetch

    def next(self, size: int) -> RangeDelete | None:
        """The rows that the next so many entries lead to; None where there are no more."""
        while self._index_bounds:
            bound = self._index_bounds[0]
            entries, following = self._look_ahead(bound, size)
            condition = sa.and_(bound.condition, self._unseen, self._after)
            if entries > size:
                return self._where(sa.and_(condition, self._up_to(bound, condition, following, size)))
            self._index_bounds.pop(0)
            # What this index led to was dealt with.
            self._unseen = sa.and_(self._unseen, bound.condition.is_not(sa.true()))
            self._after, self._from = sa.true(), None
            if entries:
                return self._where(condition)
        return None

    def _where(self, condition: sa.ColumnElement[bool]) -> RangeDelete:
        def delete(connection: sa.Connection) -> Deleted:
            columns = CompactColumns(self._table, connection.dialect)
            result = connection.execute(self._statement(condition, columns), execution_options=BULK_OPTIONS)
            return self._read(result, columns)

        return self._range_delete(lambda: condition, delete)

    def _look_ahead(self, bound: IndexBound, size: int) -> tuple[int, Any]:
        """How many entries there are, one more than the size at most, and the time in the last of these.

        The index alone answers this, as far as vacuum has been there since the rows were changed.
        """
        column = bound.time.column
        some = sa.select(column.label("at")).where(bound.condition, self._after).order_by(column).limit(size + 1)
        entries = some.subquery("entries")
        last = self._table.dialect.keyset_value(sa.func.max(entries.c.at))
        counted = sa.select(sa.func.count().label("number"), last.label("last"))
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
        # More sessions than one transaction deletes have the same time: they are ordered by their ids.
        last = sa.select(key.label("id")).where(condition, column == at).order_by(key).offset(size - 1).limit(1)
        found = self._fetch(last)
        if not found:
            self._from, self._after = None, column > at
            return column == at
        here = sa.literal(found[0].id, key.type)
        self._after = sa.and_(column >= at, sa.or_(column > at, key > here))
        return sa.and_(column == at, key <= here)
