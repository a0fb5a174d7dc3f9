"""The history of users, written by the statement that deletes their sessions."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from stores.model.sessions import Cause
from stores.sql.dialects.postgresql.deletion_totals import whole_seconds
from stores.sql.dialects.postgresql.upsert import insert_selected
from stores.sql.removal.history import ADDED_COLUMNS, KEY_COLUMNS, HistoryTable
from stores.sql.schema.tables import USER_LENGTH, history


def insert_into_history(table: HistoryTable, deleted: sa.CTE, cause: Cause) -> Any:
    """The INSERT that does what :meth:`HistoryTable.add` does, for what another part of its statement deletes.

    Args:
        table: the history.
        deleted: the deleted rows, with their ``user_id`` and ``seconds``.
        cause: why they were deleted.
    """
    # As the driver would return it, blanks at its end and all; and compared as Python does.
    user = sa.func.left(sa.func.concat(deleted.c.user_id), USER_LENGTH, type_=sa.Text).collate("C")
    same = [sa.literal(value, history.c[name].type).label(name) for name, value in table.day_and_cause(cause).items()]
    rows = (
        sa.select(
            user.label("user_id"),
            *same,
            sa.func.count().label("sessions"),
            whole_seconds(deleted.c.seconds).label("total_seconds"),
        )
        .where(deleted.c.user_id.is_not(None))
        .group_by(user)
        .order_by(user)
    )
    return insert_selected(history, KEY_COLUMNS, rows, adds=ADDED_COLUMNS)
