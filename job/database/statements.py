"""The statements that delete. Each looks again at why a session should go, in the very statement that removes it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from job.database.table import MappedTable, one_of


def delete_where(
    table: MappedTable, ids: Collection[Any], condition: sa.ColumnElement[bool]
) -> sa.sql.dml.ReturningDelete[Any]:
    """Deletes those of the sessions that still meet the condition, and returns them.

    PostgreSQL: a row that an application is working on is skipped; one that changed since the statement began is judged
    anew before it goes. Rows are locked in the order of their ids, so that two such statements cannot deadlock.
    """
    due = sa.and_(table.id_in(ids), condition)
    return _delete(table, sa.select(table.id.label("id")).where(due).order_by(table.id), due)


def ranked(
    table: MappedTable,
    live: sa.ColumnElement[bool],
    users: Collection[Any],
    order: list[sa.ColumnElement[Any]],
    changed_by: sa.ColumnElement[Any],
) -> sa.Subquery:
    """The live sessions of some users, numbered from the one to keep first; ``seen`` is the value that decided."""
    assert table.user_id is not None
    rank = sa.func.row_number().over(partition_by=table.user_id, order_by=[*order, table.id])
    return (
        sa.select(*table.session_columns, rank.label("rank"), changed_by.label("seen"))
        .where(one_of(table.user_id, users), live)
        .subquery("ranked")
    )


def delete_over_limit(
    table: MappedTable,
    ranking: sa.Subquery,
    limit: int,
    ids: Collection[Any],
    changed_by: sa.ColumnElement[Any],
) -> sa.sql.dml.ReturningDelete[Any]:
    """Deletes those of the sessions that are still over their user's limit, and returns them.

    The ranking is computed anew in the statement; a session that is used while it runs no longer has the value it was
    ranked by, and stays.
    """
    over = sa.and_(ranking.c.id == table.id, ranking.c.rank > limit, ranking.c.seen.is_not_distinct_from(changed_by))
    chosen = sa.select(table.id.label("id")).where(table.id_in(ids), over).order_by(table.id)
    still = sa.and_(table.id_in(ids), sa.exists().where(over))
    return _delete(table, chosen, still)


def _delete(
    table: MappedTable, chosen: sa.Select[Any], condition: sa.ColumnElement[bool]
) -> sa.sql.dml.ReturningDelete[Any]:
    if table.dialect == "postgresql":
        locked = chosen.with_for_update(of=table.clause, skip_locked=True).cte("due").prefix_with("MATERIALIZED")
        condition = table.id == locked.c.id
    return sa.delete(table.clause).where(condition).returning(*table.session_columns)
