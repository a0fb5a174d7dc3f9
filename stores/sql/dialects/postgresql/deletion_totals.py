"""What a statement deletes, summed up by the server: sending the rows would take longer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from stores.model.sessions import DeletionTotals
from stores.sql.dialects.base import CLOCK_TIMES
from stores.sql.mapping.table import MappedTable, TimeExpression
from stores.sql.removal.deleted_rows import LONGEST_SECONDS, units_per_second

# Enough to see whether all were deleted or none.
_SOME_IDS = 20
_NONE: sa.ColumnClause[int] = sa.literal_column("0")


def has_durations(table: MappedTable) -> bool:
    """Whether the table has columns for when sessions began and when they were last used."""
    return table.created_at is not None and table.last_accessed_at is not None


def seconds_between(table: MappedTable) -> sa.ColumnElement[float] | None:
    """For how many seconds a session was in use, from its beginning to its last use; NULL where that is not known.

    None where the server cannot tell as we do: times without a zone follow ours.
    """
    created, accessed = table.created_at, table.last_accessed_at
    if created is None or accessed is None:
        return sa.cast(sa.null(), sa.Double)
    units = units_per_second(table)
    if units is None:
        return None
    if created.mapping.encoding in CLOCK_TIMES:
        # As ranges of times measure it: an interval takes several times as long to make and to take apart.
        return sa.func.tstzrange_subdiff(accessed.value, created.value, type_=sa.Double)
    # As numbers with a point they cannot overflow, whatever stands there.
    return (_number(accessed) - _number(created)) / sa.literal(float(units), sa.Double)


def totals_of(deleted: sa.CTE, key: sa.ColumnElement[Any] | None = None) -> sa.Select[Any]:
    """One row that :func:`read_totals` reads.

    Args:
        deleted: the deleted rows, with their ``seconds``.
        key: the column of the ids; None to select none. A few ids are selected, which must be part of ``deleted``.
    """
    seconds = deleted.c.seconds
    # Without an offset it would become part of the query around it, and be computed for each of the sums.
    plausible = sa.select(sa.case((is_known(seconds), _not_negative(seconds))).label("seconds")).offset(_NONE)
    known = plausible.subquery("known")
    totals = (sa.func.count(), sa.func.count(known.c.seconds), sa.func.coalesce(sa.func.sum(known.c.seconds), 0.0))
    if key is None:
        return sa.select(*totals).select_from(known)
    some = sa.select(deleted.c.id).limit(_SOME_IDS).subquery("some")
    ids = sa.select(sa.func.array_agg(some.c.id, type_=sa.ARRAY(key.type))).scalar_subquery()
    return sa.select(*totals, ids).select_from(known)


def read_totals(row: Sequence[Any], some_ids: Sequence[Any] | None = None) -> DeletionTotals:
    """The totals in a row of :func:`totals_of`.

    Args:
        row: the row.
        some_ids: of a few of the deleted rows; None where the row has them.
    """
    count, measured, seconds = row[:3]
    return DeletionTotals(count, measured, seconds, tuple(row[3] or ()) if some_ids is None else some_ids)


def is_known(seconds: sa.ColumnElement[float]) -> sa.ColumnElement[bool]:
    """Whether a session can have been in use for so long."""
    return sa.and_(seconds > sa.literal(-float(LONGEST_SECONDS)), seconds < sa.literal(float(LONGEST_SECONDS)))


def whole_seconds(seconds: sa.ColumnElement[float]) -> sa.ColumnElement[int]:
    """The sum of the whole seconds of each session."""
    total = sa.func.sum(sa.func.trunc(_not_negative(seconds))).filter(is_known(seconds))
    return sa.cast(sa.func.coalesce(total, 0.0), sa.BigInteger)


def _not_negative(seconds: sa.ColumnElement[float]) -> sa.ColumnElement[float]:
    return sa.func.greatest(seconds, 0.0, type_=sa.Double)


def _number(time: TimeExpression) -> sa.ColumnElement[float]:
    return sa.cast(time.column, sa.Double)
