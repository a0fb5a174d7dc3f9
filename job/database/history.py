"""The per-user history of ended sessions, and the row of statistics that each run leaves (R2.7)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from job.database.dialects import dialect_of
from job.database.schema import USER_LENGTH, history, statistics
from job.sessions import Cause, Session


class HistoryTable:
    """Counts ended sessions in the very transaction that deletes them, so that the counts are right or not there.

    Args:
        day: date (UTC) that the run's sessions are counted under.
    """

    def __init__(self, day: datetime) -> None:
        self._day = day.astimezone(UTC).date()

    def add(self, connection: sa.Connection, sessions: Sequence[Session], cause: Cause) -> None:
        """Adds deleted sessions to their users' history; sessions without an owner have none."""
        counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for session in sessions:
            if session.user_id is not None:
                entry = counts[str(session.user_id)[:USER_LENGTH]]
                entry[0] += 1
                entry[1] += _seconds(session)
        if not counts:
            return
        rows = [
            {"user_id": user, "day": self._day, "cause": cause.value, "sessions": n, "total_seconds": seconds}
            for user, (n, seconds) in sorted(counts.items())  # in one order, so that no two runs deadlock here
        ]
        keys = [column.name for column in history.primary_key]
        insert = dialect_of(connection).insert(history, keys, {}, adds=("sessions", "total_seconds"))
        connection.execute(insert, rows)


def save_statistics(connection: sa.Connection, row: dict[str, Any]) -> None:
    """Writes a run's row; writing it again (a retry, a later step) replaces it."""
    changes = {name: value for name, value in row.items() if name != "run_id"}
    insert = dialect_of(connection).insert(statistics, ["run_id"], changes, adds=())
    connection.execute(insert.values(row))


def forget_before(connection: sa.Connection, policy: str, moment: datetime) -> None:
    """Deletes a policy's statistics, and the history that all policies of the database share, older than the moment."""
    connection.execute(sa.delete(statistics).where(statistics.c.policy == policy, statistics.c.started_at < moment))
    connection.execute(sa.delete(history).where(history.c.day < moment.astimezone(UTC).date()))


def _seconds(session: Session) -> int:
    if session.created_at is None or session.last_accessed_at is None:
        return 0
    return max(0, int((session.last_accessed_at - session.created_at) / timedelta(seconds=1)))
