"""Deletes in bulk by ranges of ids, in the order in which InnoDB keeps a table (MariaDB)."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from stores.model.key_range import KeyRange, Strategy
from stores.sql.mapping.table import MappedTable
from stores.sql.removal.bulk_delete import (
    BULK_OPTIONS,
    MAX_ROWS_IN_MEMORY,
    BulkDeletePlan,
    BulkDeleteRequest,
    RangeDelete,
    compact_rows,
    delete_expired,
)
from stores.sql.removal.deleted_rows import CompactColumns, CompactRows
from stores.sql.removal.scans import Fetch, within_ids
from stores.waiting.pacing import Pace

PRIMARY_KEY = "PRIMARY"
"""How the server names the index of every primary key."""


def plan(request: BulkDeleteRequest, can_delete: Callable[[sa.Connection], bool]) -> BulkDeletePlan | None:
    """How to delete a part of the table in bulk; None where it is to be deleted by ids.

    Args:
        request: the part.
        can_delete: whether the server can delete and return rows, and wait for no lock.
    """
    table = request.table
    in_order = request.key_range.strategy is Strategy.ID_ORDER and table.id_index == PRIMARY_KEY
    if not in_order or not request.connection.transaction(can_delete):
        return None
    deletes = IdRangeDelete(table, request.expiry.expired, request.key_range, request.fetch)
    return BulkDeletePlan(deletes, Pace(request.batch_size, request.pace.least, MAX_ROWS_IN_MEMORY))


class IdRangeDelete:
    """Deletes by ranges of ids.

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

    def next(self, size: int) -> RangeDelete | None:
        """The next so many rows; None where there are no more."""
        if self._rest is None:
            return None
        key, rest = self._table.id, self._rest
        query = sa.select(key.label("id")).where(rest).order_by(key).offset(size - 1).limit(1)
        found = self._fetch(self._table.dialect.by_index(query, self._table.clause, PRIMARY_KEY))
        if found:
            last = sa.literal(found[0].id, key.type)
            condition = sa.and_(rest, key <= last)
            self._rest = sa.and_(self._within, key > last)
        else:
            condition, self._rest = rest, None
        return RangeDelete(lambda: condition, lambda connection: self._delete(connection, condition))

    def _delete(self, connection: sa.Connection, condition: sa.ColumnElement[bool]) -> CompactRows:
        columns = CompactColumns(self._table, connection.dialect)
        statement = delete_expired(self._table, sa.and_(condition, self._expired)).returning(*columns.columns)
        # Row by row it takes the locks of all rows in the range, if only for a moment, and waits for none of them.
        return compact_rows(connection.execute(statement, execution_options=BULK_OPTIONS), columns)
