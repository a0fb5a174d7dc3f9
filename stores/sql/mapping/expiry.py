"""The stored settings in SQL: who is narrowed, and what has expired for whom. Nothing is read row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from stores.model.cutoffs import Cutoffs
from stores.model.stored_settings import Level, Narrowing, Scope, Setting
from stores.sql.mapping.table import MappedTable, TimeExpression
from stores.sql.schema.tables import settings

# Settings are few by nature: thousands of rows, and most of them alike.
_MOST_DIFFERENT = 10_000


@dataclass(frozen=True, slots=True)
class IdleClass:
    """Sessions with one idle timeout that are past it, by the database.

    Attributes:
        cutoff: last used before this.
        condition: picks them; no session meets the conditions of two classes.
    """

    cutoff: datetime
    condition: sa.ColumnElement[bool]


@dataclass(frozen=True, slots=True)
class IndexBound:
    """A column that may say that a session has expired, and the latest time in it that can.

    Attributes:
        time: the column.
        moment: no later time makes a session expire; an earlier one need not, where settings narrow some only.
    """

    time: TimeExpression
    moment: datetime

    @property
    def condition(self) -> sa.ColumnElement[bool]:
        """Whether a row may have expired by this column; an index on the column serves it."""
        return self.time.before(self.moment)


@dataclass(frozen=True, slots=True)
class Expiry:
    """What has expired, with every setting applied.

    Attributes:
        ended: past an absolute timeout or the application's own expiry; NULL where that is not known.
        expired: past any timeout; NULL where nothing says so.
        live: not known to have expired.
        idle_classes: the sessions past their idle timeout and nothing else, by their timeout.
        index_bounds: a session that has expired lies before one of these.
        allowed: how many sessions the row's user may have; None where all may have the same number.
    """

    ended: sa.ColumnElement[bool]
    expired: sa.ColumnElement[bool]
    live: sa.ColumnElement[bool]
    idle_classes: Sequence[IdleClass]
    index_bounds: Sequence[IndexBound]
    allowed: sa.ColumnElement[int] | None


def expiry(table: MappedTable, cutoffs: Cutoffs, narrowing: Narrowing | None) -> Expiry:
    """The conditions of a run.

    Args:
        table: the session table.
        cutoffs: those of everybody.
        narrowing: the stored settings; None where there are none.
    """
    idle, ended = table.idle(cutoffs), table.ended(cutoffs)
    # `expiry` is now, less the skew that clocks may have: what every other cutoff counts from.
    now = cutoffs.expiry
    narrower_idle: list[tuple[datetime, sa.ColumnElement[bool]]] = []
    narrower_end: list[sa.ColumnElement[bool]] = []
    limits: list[tuple[sa.ColumnElement[bool], sa.ColumnElement[int]]] = []
    if narrowing:
        if table.last_accessed_at:
            for level in narrowing.idle:
                member = _applies(table, settings.c.idle_timeout_seconds, level)
                narrower_idle.append((now - timedelta(seconds=level.value), member))
        if table.created_at:
            for level in narrowing.absolute:
                member = _applies(table, settings.c.absolute_timeout_seconds, level)
                narrower_end.append(sa.and_(member, table.created_at.before(now - timedelta(seconds=level.value))))
        limits = [(_applies(table, settings.c.max_sessions, level), _number(level.value)) for level in narrowing.limits]
    if narrower_end:
        ended = sa.or_(ended, *narrower_end)
    classes: list[IdleClass] = []
    past = [idle]
    for n, (cutoff, member) in enumerate(narrower_idle):
        assert table.last_accessed_at
        older = table.last_accessed_at.before(cutoff)
        past.append(sa.and_(member, older))
        shorter = [earlier for _, earlier in narrower_idle[:n]]
        classes.append(IdleClass(cutoff, sa.and_(member, older, *map(sa.not_, shorter), ended.is_not(sa.true()))))
    members = [member for _, member in narrower_idle]
    classes.append(IdleClass(cutoffs.idle, sa.and_(idle, *map(sa.not_, members), ended.is_not(sa.true()))))
    expired = sa.or_(*past, ended)
    return Expiry(
        ended=ended,
        expired=expired,
        live=expired.is_not(sa.true()),
        idle_classes=classes,
        index_bounds=_index_bounds(table, cutoffs, narrowing),
        allowed=sa.case(*limits, else_=_number(narrowing.effective_limit)) if narrowing and limits else None,
    )


def _index_bounds(table: MappedTable, cutoffs: Cutoffs, narrowing: Narrowing | None) -> list[IndexBound]:
    now = cutoffs.expiry
    index_bounds = [IndexBound(table.expires_at, now)] if table.expires_at else []
    ends = [cutoffs.absolute] if cutoffs.absolute else []
    ends += [now - timedelta(seconds=level.value) for level in (narrowing.absolute if narrowing else ())]
    if table.created_at and ends:
        index_bounds.append(IndexBound(table.created_at, max(ends)))
    if table.last_accessed_at:
        narrower = [now - timedelta(seconds=level.value) for level in (narrowing.idle if narrowing else ())]
        index_bounds.append(IndexBound(table.last_accessed_at, max([cutoffs.idle, *narrower])))
    return index_bounds


def _number(value: int) -> sa.ColumnElement[int]:
    return sa.literal(value, sa.BigInteger())


def _applies(table: MappedTable, column: sa.Column[Any], level: Level) -> sa.ColumnElement[bool]:
    """Whether a setting of the level applies to the row; never NULL."""
    subject = exact_subject(table)
    found = [
        owner.in_(
            sa.select(subject).where(settings.c.scope == scope.value, column > level.above, column <= level.value)
        )
        for scope, owner in subjects(table).items()
    ]
    return sa.or_(sa.false(), *(sa.func.coalesce(f, sa.false()) for f in found))


def subjects(table: MappedTable) -> dict[Scope, sa.ColumnElement[Any]]:
    """The columns that say which settings apply to a row, as text, as far as they are mapped."""
    columns = table.table.columns
    found: dict[Scope, sa.ColumnElement[Any]] = {}
    for scope, mapping in ((Scope.TENANT, columns.tenant), (Scope.ROLE, columns.role)):
        if mapping:
            found[scope] = table.dialect.text(table.clause.c[mapping.name], table.types[mapping.name])
    if table.user_id is not None:
        found[Scope.USER] = table.owner_text(table.user_id)
    return found


def exact_subject(table: MappedTable) -> sa.ColumnElement[Any]:
    """Whom a setting is for: only the same text is the same subject."""
    return table.dialect.exact(settings.c.subject, settings.c.subject.type)


def load_settings(connection: sa.Connection) -> list[Setting]:
    """The settings, those for everybody first; rows of one scope that say the same are one."""
    values = (settings.c.scope, settings.c.idle_timeout_seconds, settings.c.absolute_timeout_seconds)
    said = (*values, settings.c.max_sessions)
    for_everybody = sa.case((settings.c.scope == Scope.GLOBAL.value, 0), else_=1)
    query = (
        sa.select(*said, sa.func.count())
        .where(settings.c.scope.in_([scope.value for scope in Scope]))
        .group_by(*said)
        .order_by(for_everybody, *said)
        .limit(_MOST_DIFFERENT)
    )
    return [Setting(Scope(row[0]), *row[1:]) for row in connection.execute(query)]
