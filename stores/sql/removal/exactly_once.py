"""A transaction that deletes sessions, each of which is deleted and counted exactly once.

A transaction can end in four ways:

1. It is committed, and the answer arrives. Done.
2. A statement fails and the connection lives on. The database has rolled everything back: nothing is deleted, nothing
   is counted, and the caller may try again.
3. The connection is lost before the commit reaches the server. The server rolls everything back.
4. The connection is lost after that: everything is committed, and only the answer is missing.

From here, 3 and 4 look the same. When the connection is back, :class:`ExactlyOnceDeletion` finds out which it was: it
keeps the sessions that the lost attempt has deleted, and checks whether any of them exists. The transaction deleted all
of them or none, so

* none exists: it was committed. Nothing is deleted again, and the lost attempt's sessions are the result;
* one exists: it was rolled back, and the deletion begins anew.

Whoever counts deleted sessions in the database (the history of users, the counts of a part that workers share) does so
in the same transaction. So these counts are committed with the deletion, or not at all, and in case 4 they are not
repeated.

A session that an application has made anew under the same id makes case 4 look like case 3. Then the deletion begins
anew, judges that session by its own times, and leaves it where it is live. What the lost attempt has deleted is in the
history, but missing from the report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import sqlalchemy as sa

from stores.model.sessions import DeletionTotals, Session
from stores.sql.connection.connect import is_refusal, is_transient
from stores.sql.connection.run_connection import RunConnection
from stores.sql.mapping.table import MappedTable
from stores.sql.removal.deleted_rows import CompactRows

D = TypeVar("D", bound=Sequence[Session] | DeletionTotals)


class TransientDeletionError(Exception):
    """Nothing was deleted, for a reason that may pass: a lock, a deadlock, a statement that took too long."""


class DeletionRefusedError(Exception):
    """Nothing was deleted: the database refuses to delete one of the rows."""


class ExactlyOnceDeletion(Generic[D]):
    """A transaction that deletes sessions exactly once, even if its connection is lost; see the module.

    Args:
        connection: of the run. When it is lost it comes back by itself, and calls the transaction again.
        table: the session table.
        delete: deletes, and returns what it deleted.
        record: counts that in the same transaction; None for nothing to count.
    """

    def __init__(
        self,
        connection: RunConnection,
        table: MappedTable,
        delete: Callable[[sa.Connection], D],
        record: Callable[[sa.Connection, D], None] | None,
    ) -> None:
        self._connection = connection
        self._table = table
        self._delete = delete
        self._record = record
        self._unanswered: D | None = None
        """What an attempt has deleted whose commit was not answered."""
        self.may_have_written = False
        """Whether the last :meth:`run` may have written anything, if only to roll it back."""

    def run(self) -> D:
        """Deletes, and returns what is gone; it may be called again after one of these errors.

        Raises:
            TransientDeletionError: all was rolled back, and another attempt may succeed.
            DeletionRefusedError: all was rolled back, because of a single row.
            sqlalchemy.exc.DBAPIError: all was rolled back, for any other reason.
            DatabaseUnavailableError, LockLostError: the connection is lost, and does not come back with its lock.
        """
        self.may_have_written = True
        try:
            deleted = self._connection.transaction(self._attempt, retry_transient=False)
        except sa.exc.DBAPIError as error:
            self._unanswered = None  # the connection is there, so all was rolled back for certain (case 2)
            if is_transient(error):
                raise TransientDeletionError from error
            if is_refusal(error):
                raise DeletionRefusedError from error
            raise
        self.may_have_written = len(deleted) > 0
        return deleted

    def _attempt(self, connection: sa.Connection) -> D:
        """Within a transaction: called once, and again each time the connection was lost."""
        if self._unanswered and not self._any_exists(connection, self._unanswered):
            return self._unanswered  # case 4
        self._unanswered = None
        self._unanswered = deleted = self._delete(connection)
        if self._record:
            self._record(connection, deleted)
        return deleted

    def _any_exists(self, connection: sa.Connection, deleted: D) -> bool:
        if isinstance(deleted, DeletionTotals):
            ids = deleted.some_ids
        else:
            ids = deleted.ids if isinstance(deleted, CompactRows) else [session.id for session in deleted]
        query = sa.select(sa.literal(1)).where(self._table.id_in(ids)).limit(1)
        return connection.execute(query).first() is not None
