"""Deletes sessions in short transactions, and reports each session that is gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa

from stores.model.session_log import SessionLog
from stores.model.sessions import Cause, Deletion, DeletionTotals, RangeDeletion, Session
from stores.sql.connection.run_connection import RunConnection
from stores.sql.mapping.table import MappedTable
from stores.sql.removal.bulk_delete import RangeDelete
from stores.sql.removal.exactly_once import D, DeletionRefusedError, ExactlyOnceDeletion, TransientDeletionError
from stores.sql.removal.history import DeletionRecorder
from stores.sql.removal.statements import Removal, remove
from stores.waiting.retry import Retrier


class BatchDeleter:
    """Deletes sessions of a table, each batch in a transaction of its own.

    Args:
        connection: of the run, with the lock.
        table: the session table.
        retrier: makes what tries a batch again after an error that may pass.
        recorder: counts what is deleted, in the same transaction; None for nothing.
        audit: the log of single deleted sessions; None for none.
    """

    def __init__(
        self,
        connection: RunConnection,
        table: MappedTable,
        retrier: Callable[[tuple[type[BaseException], ...]], Retrier],
        recorder: DeletionRecorder | None,
        audit: SessionLog | None,
    ) -> None:
        self._connection = connection
        self._table = table
        self._retry = retrier((TransientDeletionError,))
        self._recorder = recorder
        self._audit = audit
        self.written = 0
        """How many transactions have written, as far as that is known: also those that were rolled back."""

    def delete_batch(
        self, sessions: Sequence[Session], statement: Callable[[list[Any]], Removal], cause: Cause
    ) -> Deletion:
        """Deletes one batch; where a row cannot be deleted it is halved, so that the others are."""
        if not sessions:
            return Deletion()
        record = partial(self._recorder.add, cause=cause) if self._recorder else None
        delete = partial(self._remove, removal=statement([session.id for session in sessions]))
        deletion = ExactlyOnceDeletion(self._connection, self._table, delete, record)
        try:
            deleted = self._retry(partial(self._run, deletion))
        except TransientDeletionError:
            return Deletion(failed=len(sessions))
        except DeletionRefusedError:
            if len(sessions) == 1:
                return Deletion(failed=1)
            half = len(sessions) // 2
            first, second = (self.delete_batch(part, statement, cause) for part in (sessions[:half], sessions[half:]))
            return Deletion([*first.deleted, *second.deleted], first.failed + second.failed)
        if self._audit:
            self._audit.deleted(deleted, cause.value)
        return Deletion(deleted)

    def delete_range(self, part: RangeDelete, cause: Cause) -> RangeDeletion | None:
        """Deletes what has expired in a range; None where a row is locked or cannot be deleted, and nothing is done.

        It is left to the caller to write it to the cleanup log.
        """
        record: Callable[[sa.Connection, Any], None] | None = None
        if self._recorder:
            record = self._recorder.count if part.writes_history else partial(self._recorder.add, cause=cause)
        try:
            deleted = self._run(ExactlyOnceDeletion(self._connection, self._table, part.delete, record))
        except (TransientDeletionError, DeletionRefusedError):
            return None
        return RangeDeletion(deleted, unlogged=() if isinstance(deleted, DeletionTotals) else deleted)

    def _run(self, deletion: ExactlyOnceDeletion[D]) -> D:
        try:
            return deletion.run()
        finally:
            self.written += deletion.may_have_written

    def _remove(self, connection: sa.Connection, removal: Removal) -> Sequence[Session]:
        return [self._table.session(row) for row in remove(connection, self._table, removal)]
