"""The per-user history of ended sessions, and the row of statistics that each run leaves (R2.7)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import sqlalchemy as sa

from stores.model.sessions import Cause, DeletionTotals, Session, durations
from stores.sql.dialects import Dialect, dialect_of
from stores.sql.removal.deleted_rows import CompactRows
from stores.sql.removal.deletion_totals import whole_seconds
from stores.sql.schema.tables import USER_LENGTH, history, statistics

_KEYS = [column.name for column in history.primary_key]
_ADDS = ("sessions", "total_seconds")


class DeletionRecorder(Protocol):
    """What is written in the very transaction that deletes sessions."""

    @property
    def history(self) -> HistoryTable | None:
        """The history of users; None where none is kept."""

    @property
    def is_shared(self) -> bool:
        """Whether others write the same rows at the same time, so that one may have to wait for another."""

    def add(self, connection: sa.Connection, sessions: Sequence[Session], cause: Cause) -> None:
        """Notes deleted sessions; what it raises takes the deletion back."""

    def count(self, connection: sa.Connection, deleted: Sequence[Session] | DeletionTotals) -> None:
        """As :meth:`add`, where the history has the sessions already."""


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
        dialect_of(connection).add_rows(connection, history, _KEYS, self._same(cause), rows, adds=_ADDS)

    def adding(self, gone: sa.CTE, cause: Cause, dialect: Dialect) -> Any:
        """The INSERT that does the same for what another part of its statement deletes (PostgreSQL).

        Args:
            gone: the deleted rows, with their ``user_id`` and ``seconds``.
            cause: why they were deleted.
            dialect: the kind of database.
        """
        # As the driver would tell it, blanks at its end and all; and told apart and ordered as Python does.
        user = sa.func.left(sa.func.concat(gone.c.user_id), USER_LENGTH, type_=sa.Text).collate("C")
        same = [sa.literal(value, history.c[name].type).label(name) for name, value in self._same(cause).items()]
        rows = (
            sa.select(
                user.label("user_id"),
                *same,
                sa.func.count().label("sessions"),
                whole_seconds(gone.c.seconds).label("total_seconds"),
            )
            .where(gone.c.user_id.is_not(None))
            .group_by(user)
            .order_by(user)
        )
        return dialect.insert_selected(history, _KEYS, rows, adds=_ADDS)

    def _same(self, cause: Cause) -> dict[str, Any]:
        return {"day": self._day, "cause": cause.value}


def save_statistics(connection: sa.Connection, row: dict[str, Any]) -> None:
    """Writes a run's row; writing it again (a retry, a later step) replaces it."""
    changes = {name: value for name, value in row.items() if name != "run_id"}
    insert = dialect_of(connection).insert(statistics, ["run_id"], changes, adds=())
    connection.execute(insert.values(row))


def forget_before(connection: sa.Connection, policy: str, moment: datetime) -> None:
    """Deletes a policy's statistics, and the history that all policies of the database share, older than the moment."""
    connection.execute(sa.delete(statistics).where(statistics.c.policy == policy, statistics.c.started_at < moment))
    connection.execute(sa.delete(history).where(history.c.day < moment.astimezone(UTC).date()))
