"""Deleting in short transactions: each is counted in the history, written to the cleanup log, and done only once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from stores.model.session_log import SessionLog
from stores.model.sessions import Cause, Deletion, DeletionTotals, RangeDeletion, Session
from stores.sql.connection.connect import is_refusal, is_transient
from stores.sql.connection.run_connection import RunConnection
from stores.sql.mapping.table import MappedTable
from stores.sql.removal.bulk_delete import Part
from stores.sql.removal.deleted_rows import CompactRows
from stores.sql.removal.history import DeletionRecorder
from stores.sql.removal.statements import Removal, remove
from stores.waiting.retry import Retrier

D = TypeVar("D", bound=Sequence[Session] | DeletionTotals)


class _BatchFailedError(Exception):
    """A batch of deletions failed in a way that may pass."""


class BatchDeleter:
    """Deletes sessions of a table.

    Args:
        connection: the connection, with the lock.
        table: the session table.
        retrier: patience with batches that fail in a way that may pass.
        history: where ended sessions are counted; None where nothing is kept.
        audit: the log of single deleted sessions; None for none.
    """

    def __init__(
        self,
        connection: RunConnection,
        table: MappedTable,
        retrier: Callable[[tuple[type[BaseException], ...]], Retrier],
        history: DeletionRecorder | None,
        audit: SessionLog | None,
    ) -> None:
        self._connection = connection
        self._table = table
        self._retry = retrier((_BatchFailedError,))
        self._history = history
        self._audit = audit
        self.written = 0
        """How many transactions have written, as far as that is known: also those that were rolled back."""

    def batch(self, sessions: Sequence[Session], statement: Callable[[list[Any]], Removal], cause: Cause) -> Deletion:
        """One batch; halved where a single row is the trouble, so that the others still go."""
        if not sessions:
            return Deletion()

        def take(connection: sa.Connection) -> Sequence[Session]:
            rows = remove(connection, self._table, statement([s.id for s in sessions]))
            return [self._table.session(row) for row in rows]

        record = partial(self._history.add, cause=cause) if self._history else None
        transaction: _Once[Sequence[Session]] = _Once(self._connection, self._table, take, record)

        def attempt() -> Sequence[Session]:
            try:
                return self._run(transaction)
            except sa.exc.DBAPIError as error:
                if is_transient(error):
                    raise _BatchFailedError from error
                raise

        try:
            return self._settled(self._retry(attempt), cause)
        except _BatchFailedError:
            return Deletion(failed=len(sessions))
        except sa.exc.DBAPIError as error:
            if not is_refusal(error):
                raise
            if len(sessions) == 1:
                return Deletion(failed=1)
            half = len(sessions) // 2
            first, second = (self.batch(part, statement, cause) for part in (sessions[:half], sessions[half:]))
            return Deletion([*first.deleted, *second.deleted], first.failed + second.failed)

    def at_once(self, part: Part, cause: Cause) -> RangeDeletion | None:
        """What has expired in a part, in one transaction; None where a row is locked or refuses, and nothing is done.

        It is left to the caller to write it to the cleanup log.
        """
        record: Callable[[sa.Connection, Any], None] | None = None
        if self._history:
            record = self._history.count if part.notes_history else partial(self._history.add, cause=cause)
        try:
            deleted = self._run(_Once(self._connection, self._table, part.take, record))
            return RangeDeletion(deleted, unlogged=() if isinstance(deleted, DeletionTotals) else deleted)
        except sa.exc.DBAPIError as error:
            if is_transient(error) or is_refusal(error):
                return None
            raise

    def _run(self, transaction: _Once[D]) -> D:
        wrote = True
        try:
            deleted = transaction.run()
            wrote = len(deleted) > 0
            return deleted
        finally:
            self.written += wrote

    def _settled(self, deleted: Sequence[Session], cause: Cause) -> Deletion:
        if self._audit:
            self._audit.deleted(deleted, cause.value)
        return Deletion(deleted)


class _Once(Generic[D]):
    """A transaction that deletes. When its connection is lost, it finds out by itself whether it was committed.

    Args:
        connection: the connection.
        table: the session table.
        take: deletes, and returns what it deleted.
        record: is told of that in the same transaction.
    """

    def __init__(
        self,
        connection: RunConnection,
        table: MappedTable,
        take: Callable[[sa.Connection], D],
        record: Callable[[sa.Connection, D], None] | None,
    ) -> None:
        self._connection = connection
        self._table = table
        self._take = take
        self._record = record
        self._attempted: D | None = None

    def run(self) -> D:
        """Does it, and returns what is gone.

        Raises:
            sqlalchemy.exc.DBAPIError: a statement failed, and all was rolled back; the connection is fine.
        """
        try:
            return self._connection.transaction(self._work, retry_transient=False)
        except sa.exc.DBAPIError:
            self._attempted = None  # rolled back for certain: the connection is still there
            raise

    def _work(self, connection: sa.Connection) -> D:
        if self._attempted and not self._any_exists(connection, self._attempted):
            return self._attempted  # the commit had gone through; only the answer to it was lost
        self._attempted = None
        self._attempted = deleted = self._take(connection)
        if self._record:
            self._record(connection, deleted)
        return deleted

    def _any_exists(self, connection: sa.Connection, found: D) -> bool:
        if isinstance(found, DeletionTotals):
            ids = found.some_ids
        else:
            ids = found.ids if isinstance(found, CompactRows) else [session.id for session in found]
        query = sa.select(sa.literal(1)).where(self._table.id_in(ids)).limit(1)
        return connection.execute(query).first() is not None
