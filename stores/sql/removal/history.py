"""The per-user history of ended sessions, and the row of statistics that each run leaves (R2.7)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from stores.model.sessions import Cause, DeletionTotals, Session, durations
from stores.sql.dialects import dialect_of
from stores.sql.removal.deleted_rows import CompactRows
from stores.sql.schema.tables import USER_LENGTH, history, statistics

KEY_COLUMNS = [column.name for column in history.primary_key]
ADDED_COLUMNS = ("sessions", "total_seconds")


class HistoryTable:
    """The history: ended sessions by user, day and cause, counted in the transaction that deletes them.

    Args:
        day: date (UTC) that the run's sessions are counted under.
    """

    def __init__(self, day: datetime) -> None:
        self._day = day.astimezone(UTC).date()

    def add(self, connection: sa.Connection, sessions: Sequence[Session], cause: Cause) -> None:
        """Adds deleted sessions to their users' history; sessions without an owner have none."""
        counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        users = sessions.users if isinstance(sessions, CompactRows) else [session.user_id for session in sessions]
        for user, seconds in zip(users, durations(sessions), strict=True):
            if user is not None:
                entry = counts[str(user)[:USER_LENGTH]]
                entry[0] += 1
                entry[1] += int(seconds or 0)
        if not counts:
            return
        rows = [
            {"user_id": user, "sessions": n, "total_seconds": seconds}
            for user, (n, seconds) in sorted(counts.items())  # in one order, so that no two runs deadlock here
        ]
        dialect_of(connection).add_rows(
            connection, history, KEY_COLUMNS, self.day_and_cause(cause), rows, adds=ADDED_COLUMNS
        )

    def day_and_cause(self, cause: Cause) -> dict[str, Any]:
        """The columns that have one value in all rows of a batch."""
        return {"day": self._day, "cause": cause.value}


class DeletionRecorder:
    """Records deleted sessions, in the transaction that deletes them: in the history, and in the counts of a part.

    Attributes:
        history: the history of users; None where none is kept.
        count_in_part: adds deleted sessions to the counts of the part that this worker has claimed; None where no
            other workers are at work on the same table.
    """

    def __init__(self, history: HistoryTable | None) -> None:
        self.history = history
        self.count_in_part: Callable[[sa.Connection, Sequence[Session] | DeletionTotals], None] | None = None

    @property
    def is_shared(self) -> bool:
        """Whether others write the same rows at the same time, so that one may have to wait for another."""
        return self.count_in_part is not None

    def add(self, connection: sa.Connection, sessions: Sequence[Session], cause: Cause) -> None:
        """Adds deleted sessions; what it raises rolls the deletion back."""
        if self.history:
            self.history.add(connection, sessions, cause)
        self.count(connection, sessions)

    def count(self, connection: sa.Connection, deleted: Sequence[Session] | DeletionTotals) -> None:
        """As :meth:`add`, where the history has the sessions already."""
        # Last, because the row is wanted by others; it is held until the commit, which is next.
        if self.count_in_part:
            self.count_in_part(connection, deleted)


def save_statistics(connection: sa.Connection, row: dict[str, Any]) -> None:
    """Writes a run's row; writing it again (a retry, a later step) replaces it."""
    changes = {name: value for name, value in row.items() if name != "run_id"}
    insert = dialect_of(connection).insert(statistics, ["run_id"], changes, adds=())
    connection.execute(insert.values(row))


def forget_before(connection: sa.Connection, policy: str, moment: datetime) -> None:
    """Deletes a policy's statistics, and the history that all policies of the database share, older than the moment."""
    connection.execute(sa.delete(statistics).where(statistics.c.policy == policy, statistics.c.started_at < moment))
    connection.execute(sa.delete(history).where(history.c.day < moment.astimezone(UTC).date()))
