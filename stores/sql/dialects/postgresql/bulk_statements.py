"""The statements of a bulk delete: what they return, what else they write, and how long they wait for locks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from stores.model.sessions import Cause
from stores.sql.dialects.base import LOCK_TIMEOUT_SECONDS
from stores.sql.dialects.postgresql.deletion_totals import read_totals, seconds_between, totals_of
from stores.sql.dialects.postgresql.history_rows import insert_into_history
from stores.sql.mapping.table import MappedTable
from stores.sql.removal.bulk_delete import BULK_OPTIONS, Delete, Deleted, RangeDelete, compact_rows, delete_expired
from stores.sql.removal.deleted_rows import CompactColumns
from stores.sql.removal.history import DeletionRecorder

# Less than an application notices, and than any server takes to see a deadlock.
_LOCK_WAIT_MILLISECONDS = 20


class PostgreSQLBulkDelete:
    """Deletes ranges of a table, without waiting for locks for long.

    Args:
        table: the session table.
        expired: whether a session has expired.
        recorder: what else is written in the same transaction; None for nothing.
        reports_each: whether each deleted session is to be reported.
    """

    def __init__(
        self,
        table: MappedTable,
        expired: sa.ColumnElement[bool],
        recorder: DeletionRecorder | None,
        *,
        reports_each: bool,
    ) -> None:
        self._table = table
        self._expired = expired
        self._seconds = seconds = seconds_between(table)
        shared = recorder is not None and recorder.is_shared
        history = recorder.history if recorder and table.user_id is not None else None
        # Others who write the same rows of the history would have to be waited for.
        self._history = None if shared or seconds is None else history
        self._writes_history = history is None or self._history is not None
        self._reports_each = reports_each or seconds is None or not self._writes_history
        self._writes_more = shared or not self._writes_history

    def _range_delete(self, condition: Callable[[], sa.ColumnElement[bool]], delete: Delete) -> RangeDelete:
        return RangeDelete(
            condition, lambda connection: self._delete_without_waiting(connection, delete), self._writes_history
        )

    def _delete_without_waiting(self, connection: sa.Connection, delete: Delete) -> Deleted:
        # A row that was changed after the statement began is judged anew, by its new version, before it is deleted.
        _wait_for_locks(connection, _LOCK_WAIT_MILLISECONDS)
        deleted = delete(connection)
        if self._writes_more:
            _wait_for_locks(connection, LOCK_TIMEOUT_SECONDS * 1000)
        return deleted

    def _statement(
        self, condition: sa.ColumnElement[bool], columns: CompactColumns, *, returns_ids: bool = True
    ) -> sa.Executable:
        """The statement that deletes, and returns each deleted row or the totals."""
        deletion = delete_expired(self._table, sa.and_(condition, self._expired))
        rows = columns.columns
        if self._reports_each and self._history is None:
            return deletion.returning(*rows)
        assert self._seconds is not None
        wanted = {"id": returns_ids, "user_id": self._history is not None}
        returned = rows if self._reports_each else [each for each in rows if wanted.get(each.name)]
        deleted = deletion.returning(*returned, self._seconds.label("seconds")).cte("deleted")
        if self._reports_each:
            query = sa.select(*(deleted.c[each.name] for each in rows))
        else:
            query = totals_of(deleted, self._table.id if returns_ids else None)
        if self._history:
            query = query.add_cte(insert_into_history(self._history, deleted, Cause.EXPIRED).cte("history_rows"))
        return query

    def _read(
        self, result: sa.CursorResult[Any], columns: CompactColumns, some_ids: Sequence[Any] | None = None
    ) -> Deleted:
        """What :meth:`_statement` has returned; with the ids of a few of the rows where it does not return them."""
        return compact_rows(result, columns) if self._reports_each else read_totals(result.one(), some_ids)


class PreparedBulkDelete(PostgreSQLBulkDelete, ABC):
    """With one statement for all ranges, each of which binds its own values to it."""

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
        return connection.execute(statement, values, execution_options=BULK_OPTIONS), columns


def _wait_for_locks(connection: sa.Connection, milliseconds: int) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {milliseconds}")
