"""What a statement deletes, summed up by the server itself (PostgreSQL): to send the rows takes longer than that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from job.database.compact import LONGEST_SECONDS, units_per_second
from job.database.dialects.base import CLOCK_TIMES
from job.database.table import MappedTable, TimeExpression
from job.sessions import Sums

# Enough to see whether all were deleted or none.
_SOME_IDS = 20


def seconds_between(table: MappedTable) -> sa.ColumnElement[float] | None:
    """For how many seconds a session was in use, from its beginning to its last use; NULL where no calendar tells.

    None where the server cannot tell as we do: times without a zone follow ours.
    """
    created, accessed = table.created_at, table.last_accessed_at
    if created is None or accessed is None:
        return sa.cast(sa.null(), sa.Double)
    units = units_per_second(table)
    if units is None:
        return None
    if created.mapping.encoding in CLOCK_TIMES:
        return sa.func.date_part("epoch", accessed.value - created.value, type_=sa.Double)
    # As numbers with a point they cannot overflow, whatever stands there.
    return (_number(accessed) - _number(created)) / sa.literal(float(units), sa.Double)


def summed(gone: sa.CTE, key: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """One row that :func:`read_sums` reads.

    Args:
        gone: the deleted rows, with their ``id`` and ``seconds``.
        key: the column of the ids.
    """
    some = sa.select(gone.c.id).limit(_SOME_IDS).subquery("some")
    ids = sa.select(sa.func.array_agg(some.c.id, type_=sa.ARRAY(key.type))).scalar_subquery()
    return sa.select(
        sa.func.count(),
        sa.func.count(gone.c.seconds).filter(is_known(gone.c.seconds)),
        sa.func.coalesce(sa.func.sum(_not_negative(gone.c.seconds)).filter(is_known(gone.c.seconds)), 0.0),
        ids,
    ).select_from(gone)


def read_sums(row: Sequence[Any]) -> Sums:
    """The sums in a row of :func:`summed`."""
    return Sums(count=row[0], measured=row[1], seconds=row[2], some_ids=tuple(row[3] or ()))


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
