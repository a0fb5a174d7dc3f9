"""The statements that delete. Each checks again why a session should go, in the transaction that deletes it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from stores.sql.mapping.table import MappedTable


@dataclass(frozen=True, eq=False)
class Removal:
    """Some sessions, and the conditions under which they are deleted.

    Attributes:
        ids: the sessions.
        row: what each row must say for itself.
        among: what must hold among the rows, e.g. that a session ranks behind others; None where nothing must.
        joined: ``among`` as a condition of one query together with the row, where the database can lock that way.
    """

    ids: Collection[Any]
    row: sa.ColumnElement[bool]
    among: sa.ColumnElement[bool] | None = None
    joined: sa.ColumnElement[bool] | None = None


def delete_where(table: MappedTable, ids: Collection[Any], condition: sa.ColumnElement[bool]) -> Removal:
    """Those of the sessions that still meet the condition when they are deleted."""
    return Removal(ids, condition)


def ranked(
    table: MappedTable,
    live: sa.ColumnElement[bool],
    users: Collection[Any],
    order: list[sa.ColumnElement[Any]],
    changed_by: sa.ColumnElement[Any],
    limit: int,
    allowed: sa.ColumnElement[int] | None = None,
) -> sa.Subquery:
    """The live sessions of some users, numbered from the one to keep first; ``seen`` is the value that decided.

    Whoever may have fewer sessions than the limit has them numbered from a larger number on: for everybody, what is
    numbered higher than the limit is too many.
    """
    assert table.user_id is not None
    rank: sa.ColumnElement[Any] = sa.func.row_number().over(partition_by=table.user_id, order_by=[*order, table.id])
    if allowed is not None:
        rank = rank + (limit - sa.func.min(allowed).over(partition_by=table.user_id))
    return (
        sa.select(*table.session_columns, rank.label("rank"), changed_by.label("seen"))
        .where(table.user_in(users), live)
        .subquery("ranked")
    )


def delete_over_limit(
    table: MappedTable,
    ranking: sa.Subquery,
    limit: int,
    ids: Collection[Any],
    changed_by: sa.ColumnElement[Any],
) -> Removal:
    """Those of the sessions that are still over their user's limit when they are deleted.

    The ranking is computed anew; a session that is used meanwhile no longer has the value it was ranked by, and stays.
    """
    over = sa.and_(ranking.c.id == table.id, ranking.c.rank > limit, ranking.c.seen.is_not_distinct_from(changed_by))
    return Removal(ids, sa.true(), among=sa.exists().where(over), joined=over)


def remove(connection: sa.Connection, table: MappedTable, removal: Removal) -> Sequence[sa.Row[Any]]:
    """Deletes sessions, and returns :attr:`MappedTable.session_columns` of those that were deleted.

    A row that others have locked is skipped; one that changed since it was read is judged anew before it
    goes. Rows are locked in the order of their ids, so that two such statements cannot deadlock.
    """
    if table.dialect.deletes_returning and not any(not reference.cascades for reference in table.references):
        return connection.execute(_in_one_statement(table, removal)).all()
    return _step_by_step(connection, table, removal)


def _in_one_statement(table: MappedTable, removal: Removal) -> sa.sql.dml.ReturningDelete[Any]:
    chosen = _chosen(table, removal.ids, removal.row, removal.joined).with_only_columns(table.id.label("id"))
    locked = table.dialect.locking(chosen, table.clause, table.id_index)
    if locked is chosen:  # nobody else writes meanwhile
        conditions = [c for c in (removal.row, removal.among) if c is not None]
        condition = sa.and_(table.id_in(removal.ids), *conditions)
    else:
        condition = table.id == locked.cte("due").prefix_with("MATERIALIZED").c.id
    return sa.delete(table.clause).where(condition).returning(*table.session_columns)


def _step_by_step(connection: sa.Connection, table: MappedTable, removal: Removal) -> Sequence[sa.Row[Any]]:
    """Locks, judges, deletes: for databases that cannot do all that at once, and where other rows must go first."""
    clause, references = table.clause, [r for r in table.references if not r.cascades]
    referred = list(dict.fromkeys(name for reference in references for name in reference.refers_to))
    query = _chosen(table, removal.ids, removal.row, None).with_only_columns(
        *table.session_columns, *(clause.c[name].label(f"referred_{n}") for n, name in enumerate(referred))
    )
    rows = connection.execute(table.dialect.locking(query, clause, table.id_index)).all()
    if rows and removal.among is not None:
        # Nobody can change these rows any more, so what is judged now still holds when they are deleted.
        ids = [row[0] for row in rows]
        still = set(connection.scalars(sa.select(table.id).where(table.id_in(ids), removal.among)))
        rows = [row for row in rows if row[0] in still]
    if not rows:
        return []
    first = len(table.session_columns)
    for reference in references:
        at = [first + referred.index(name) for name in reference.refers_to]
        keys = [tuple(row[i] for i in at) for row in rows if all(row[i] is not None for i in at)]
        if keys:
            connection.execute(reference.release(keys))
    table.dialect.delete(connection, clause, table.id, [row[0] for row in rows], table.id_index)
    return rows


def _chosen(
    table: MappedTable, ids: Collection[Any], row: sa.ColumnElement[bool], joined: sa.ColumnElement[bool] | None
) -> sa.Select[Any]:
    conditions = [table.id_in(ids), row] + ([joined] if joined is not None else [])
    return sa.select(table.id).where(*conditions).order_by(table.id)
