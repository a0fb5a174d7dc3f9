"""Finds and deletes what has expired in one statement for each range of the table, where the database can do that.

The statement returns the deleted sessions where each is to be reported; else, where the server can do that, it counts
them itself, and adds them to the history of their users.

Such a statement waits for no lock, or for a moment at most: a range with a row that others have locked, or that
cannot be deleted, is left as it is, for its rows to be deleted by their ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa

from stores.model.key_range import KeyRange
from stores.model.sessions import DeletionTotals
from stores.sql.connection.run_connection import RunConnection
from stores.sql.dialects.base import BULK_DELETE, TableLayout
from stores.sql.mapping.expiry import Expiry
from stores.sql.mapping.table import MappedTable
from stores.sql.removal.deleted_rows import CompactColumns, CompactRows
from stores.sql.removal.history import DeletionRecorder
from stores.sql.removal.scans import Fetch
from stores.waiting.pacing import Pace

BULK_OPTIONS = {BULK_DELETE: True}
"""Execution options of the statements."""

MAX_ROWS_IN_MEMORY = 50_000
"""What one statement may return."""

Deleted = CompactRows | DeletionTotals
Delete = Callable[[sa.Connection], Deleted]


@dataclass(frozen=True, eq=False)
class RangeDelete:
    """How to delete what has expired in a range of the table.

    Attributes:
        condition: makes the condition that a row lies in the range; only a range that is done by ids needs it.
        delete: deletes what has expired in it, and returns that.
        writes_history: whether that also adds it to the history of users.
    """

    condition: Callable[[], sa.ColumnElement[bool]]
    delete: Delete
    writes_history: bool = False


class BulkDelete(Protocol):
    """Goes through a part of the table, range by range."""

    def next(self, size: int) -> RangeDelete | None:
        """The next range, of about this size in whatever it is counted in; None where there is no more."""


class BulkDeletePlan(NamedTuple):
    """How to delete a part of the table in bulk.

    Attributes:
        deletes: range by range.
        pace: of the ranges, in what their size is counted in.
    """

    deletes: BulkDelete
    pace: Pace


@dataclass(frozen=True, eq=False)
class BulkDeleteRequest:
    """A part of a table that is to be deleted in bulk, and what is known of it.

    Attributes:
        table: the session table.
        expiry: what has expired.
        key_range: which part of the table.
        layout: of the table.
        expired: how many sessions have expired; None where they were not counted.
        index_entries: reads how many index entries lead to them; None where that is not known.
        pace: of deletions by ids, in sessions.
        batch_size: sessions in a transaction to begin with.
        writers_are_busy: whether others write to the server just now.
        connection: of the run.
        recorder: what else is written in the same transaction; None for nothing.
        reports_each: whether each deleted session is to be reported.
    """

    table: MappedTable
    expiry: Expiry
    key_range: KeyRange
    layout: TableLayout
    expired: int | None
    index_entries: Callable[[], int | None]
    pace: Pace
    batch_size: int
    writers_are_busy: bool
    connection: RunConnection
    recorder: DeletionRecorder | None
    reports_each: bool

    @property
    def fetch(self) -> Fetch:
        """Runs a query in a transaction of its own."""
        return lambda query: self.connection.transaction(lambda connection: connection.execute(query).all())


class DeletesInBulk(ABC):
    """A database that can find and delete in one statement, without waiting for locks."""

    @abstractmethod
    def bulk_delete(self, request: BulkDeleteRequest) -> BulkDeletePlan | None:
        """How to delete it in bulk; None where it is to be deleted by ids."""


def delete_expired(table: MappedTable, condition: sa.ColumnElement[bool]) -> sa.Delete:
    """The DELETE of the rows that meet a condition and have an id."""
    return sa.delete(table.clause).where(condition, table.id.is_not(None))


def compact_rows(result: sa.CursorResult[Any], columns: CompactColumns) -> CompactRows:
    """The rows as the driver returns them: wrapping very many rows, and each column of them, costs more than fetching.

    Args:
        result: of a statement with :data:`BULK_OPTIONS` that returns :attr:`CompactColumns.columns`.
        columns: these.
    """
    cursor = result.cursor
    assert cursor is not None
    # What the server sent is here already; it can be taken apart while the server is at work on the next range.
    return CompactRows(cursor.rowcount, lambda: list(cursor.fetchall()), columns)
