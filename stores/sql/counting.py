"""Counts all sessions, and when they began, in one pass over the table."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from stores.sql.mapping.table import MappedTable, TimeExpression

Fetch = Callable[[sa.Executable], Sequence[sa.Row[Any]]]


@dataclass(frozen=True, slots=True)
class CreationCounts:
    """How many sessions began between one moment and the next.

    Attributes:
        column: the column that says when a session began.
        bounds: the moments as the column writes them, ascending.
        live: how many live sessions began before the first bound, then from each bound on until the next.
        all: likewise, live or not.
    """

    column: TimeExpression
    bounds: Sequence[Any]
    live: Sequence[int]
    all: Sequence[int]

    def live_before(self, moment: datetime) -> int:
        """How many live sessions began before one of the moments."""
        return sum(self.live[: self._index(moment)])

    def all_since(self, moment: datetime) -> int:
        """How many sessions, live or not, began at one of the moments or later."""
        return sum(self.all[self._index(moment) :])

    def _index(self, moment: datetime) -> int:
        return bisect_right(self.bounds, self.column.bound(moment))


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts of one pass.

    Attributes:
        total: all sessions.
        expired: those past their timeout.
        created: when sessions began; None where that is not known, or was not asked for.
    """

    total: int
    expired: int
    created: CreationCounts | None = None


def count_sessions(
    table: MappedTable, expired: sa.ColumnElement[bool], moments: Collection[datetime], fetch: Fetch
) -> Counts:
    """Counts all sessions in one pass.

    Args:
        table: the session table.
        expired: whether a session is past its timeout.
        moments: sessions are counted by the two of these between which they began; none to count only the total.
        fetch: all rows of a query that finds few.
    """
    created = table.created_at
    if created is None or not moments:
        query = sa.select(sa.func.count(), sa.func.count(sa.case((expired, 1)))).select_from(table.clause)
        row: Sequence[int] = tuple(fetch(query)[0])
        return Counts(row[0], row[1])
    # By what is compared, not by the moment: where clocks are set back, local times are not in the order of time.
    bounds = sorted({created.bound(moment): moment for moment in moments}.items())
    rows = sa.select(sa.case((expired, 1), else_=0).label("expired"), _bucket(created, [m for _, m in bounds]))
    each = rows.select_from(table.clause).subquery("each")
    keys = (each.c.expired, each.c.bucket)
    live, all_ = ([0] * (len(bounds) + 1) for _ in range(2))
    total = gone = 0
    for row in fetch(sa.select(*keys, sa.func.count().label("sessions")).group_by(*keys)):
        is_expired, bucket, number = bool(row.expired), row.bucket, int(row.sessions)
        total += number
        gone += number if is_expired else 0
        if bucket is not None:
            all_[bucket] += number
            live[bucket] += 0 if is_expired else number
    return Counts(total, gone, CreationCounts(created, [bound for bound, _ in bounds], live, all_))


def _bucket(created: TimeExpression, moments: Sequence[datetime]) -> sa.Label[Any]:
    """How many of the moments a session began at or after; NULL where its beginning is not known."""
    # The last first: most live sessions are young, and the first that fits counts.
    since = [(sa.not_(created.before(moment)), n) for n, moment in enumerate(moments, 1)]
    return sa.case(*reversed(since), (created.before(moments[0]), 0)).label("bucket")
