"""Queries of the session table for rules, usage statistics and stored settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from stores.model.batches import batches, batches_by_weight
from stores.model.sessions import Cause, Deletion, Session
from stores.model.stored_settings import Scope
from stores.rules.clients import FAMILIES, OTHER, UNKNOWN
from stores.rules.details import SessionDetails
from stores.rules.detector import RequiredField
from stores.sql.counting import Counts
from stores.sql.mapping.expiry import exact_subject, subjects
from stores.sql.mapping.table import MappedTable, TimeExpression
from stores.sql.owners import Owners
from stores.sql.schema.tables import settings
from stores.sql.store import SessionDatabase

# CreationCounts of sessions that are held in memory; of one user there may be more, to a bound of its own.
_BEGINNINGS_AT_ONCE = 25_000
_MOST_BEGINNINGS = 100_000
# Ids that are listed in one pass over the table, and held in memory.
_IDS_AT_ONCE = 50_000
# More than so many are not worth a pass for each part of them.
_MOST_LISTED = 500_000


@dataclass(frozen=True, slots=True)
class ClientUsage:
    """Live sessions of one kind of client.

    Attributes:
        client: the kind.
        active: all.
        begun: those that began since a moment.
        used: those last used since then.
    """

    client: str
    active: int
    begun: int
    used: int


class SessionOrigin(NamedTuple):
    """What a session began with; None for what is not known.

    Attributes:
        key: its id as Redis keys spell it.
        address: IP address.
        client: client.
    """

    key: str
    address: str | None = None
    client: str | None = None


class RuleQueries:
    """Queries for rules, usage statistics and stored settings, on the connection of the session database.

    Args:
        database: the session table of the run.
    """

    def __init__(self, database: SessionDatabase) -> None:
        self._database = database
        self._table = database.table
        self._client = database.owners.client
        table = self._table
        mapped = {
            RequiredField.USER_ID: table.user_id is not None,
            RequiredField.CREATED_AT: table.created_at is not None,
            RequiredField.LAST_ACCESSED_AT: table.last_accessed_at is not None,
            RequiredField.CREATED_OR_LAST_ACCESSED_AT: bool(table.created_at or table.last_accessed_at),
            RequiredField.EXPIRES_AT: table.expires_at is not None,
            RequiredField.CLIENT: table.client is not None,
            RequiredField.ADDRESS: table.address is not None,
            RequiredField.REVOKED: table.revoked is not None,
        }
        self.mapped: frozenset[RequiredField] = frozenset(field for field, is_mapped in mapped.items() if is_mapped)
        """What the policy maps of what rules require, but for access logs."""

    def clock_offset(self) -> timedelta:
        """How far the database's clock is ahead of this process's."""
        return self._database.clock_offset()

    # --- rules ---------------------------------------------------------------------------------------------------

    @property
    def columns(self) -> MappedTable:
        """The session table, for the SQL conditions of rules."""
        return self._table

    def detail_pages(self, condition: sa.ColumnElement[bool]) -> Iterator[list[SessionDetails]]:
        """The live sessions that met the condition a moment ago, a batch at a time; each once.

        Usually they are few among many, and reading the table in the order of the ids would fetch every row at random.
        So their ids are listed first, and only these rows are fetched.
        """
        key = self._table.id
        after_id = None
        while True:
            listed = sa.select(key.label("id")).where(*self._within(condition, after_id)).cte("listed")
            # Materialized before the limit: a planner that sees the limit would read in the order of the ids after all.
            listed = self._table.dialect.materialized(listed)
            ids = self._database.scalars(sa.select(listed.c.id).order_by(listed.c.id).limit(_IDS_AT_ONCE))
            for some in batches(ids, self._database.batch_size):
                if page := self.details_of(some):
                    yield page
            if len(ids) < _IDS_AT_ONCE:
                return
            if after_id is None and self._count(condition) > _MOST_LISTED:
                yield from self._details_by_id(condition, ids[-1])
                return
            after_id = ids[-1]

    def _details_by_id(self, condition: sa.ColumnElement[bool], after_id: Any) -> Iterator[list[SessionDetails]]:
        size = self._database.batch_size
        while page := self._details(*self._within(condition, after_id), limit=size):
            yield page
            if len(page) < size:
                return
            after_id = page[-1].session.id

    def details_of(self, ids: Collection[Any], unless: sa.ColumnElement[bool] | None = None) -> list[SessionDetails]:
        """Those of the sessions that are live, and do not meet the condition."""
        if not ids:
            return []
        other = sa.true() if unless is None else unless.is_not(sa.true())
        return self._details(self._database.live, self._table.id_in(ids), other)

    def _details(self, *conditions: sa.ColumnElement[bool], limit: int | None = None) -> list[SessionDetails]:
        told = (
            _or_null(self._table.address).label("address"),
            _or_null(self._client).label("client"),
            sa.func.coalesce(_or_false(self._table.revoked), sa.false()).label("revoked"),
        )
        query = sa.select(*self._table.session_columns, *told).where(*conditions)
        if limit is not None:
            query = query.order_by(self._table.id).limit(limit)
        rows = self._database.fetch(query)
        return [SessionDetails(self._table.session(row), row.address, row.client, bool(row.revoked)) for row in rows]

    def origins(self, ids: Collection[Any]) -> list[SessionOrigin]:
        """What those of the sessions that are live began with."""
        if not ids:
            return []
        query = sa.select(self._table.id, _or_null(self._table.address), _or_null(self._client))
        rows = self._database.fetch(query.where(self._database.live, self._table.id_in(ids)))
        return [SessionOrigin(str(key), address, client) for key, address, client in map(tuple, rows)]

    def ids(self, keys: Iterable[str]) -> list[Any]:
        """The ids that Redis keys spell, each once; without those that the id column cannot hold."""
        return [i for i in dict.fromkeys(map(self._table.parse_key, keys)) if i is not None]

    def _count(self, condition: sa.ColumnElement[bool]) -> int:
        query = sa.select(sa.func.count()).select_from(self._table.clause)
        return int(self._database.fetch(query.where(*self._within(condition)))[0][0])

    def _within(self, condition: sa.ColumnElement[bool], after_id: Any = None) -> list[sa.ColumnElement[bool]]:
        key = self._table.id
        conditions = [self._database.live, condition, key.is_not(None)]
        if after_id is not None:
            conditions.append(key > sa.literal(after_id, key.type))
        return conditions

    def newest_ids(self, limit: int) -> list[Any]:
        """Ids of the sessions that began last, as far as that is known; the largest ids otherwise."""
        created = self._table.created_at
        if created:
            known = sa.select(self._table.id).where(created.instant.is_not(None), self._table.id.is_not(None))
            if rows := self._database.fetch(known.order_by(created.ordered.desc()).limit(limit)):
                return [row[0] for row in rows]
        query = sa.select(self._table.id).where(self._table.id.is_not(None)).order_by(self._table.id.desc())
        return [row[0] for row in self._database.fetch(query.limit(limit))]

    def creation_times(self, more_than: int) -> Iterator[dict[Any, list[datetime]]]:
        """When the live sessions of each user who has more than so many began, some users at a time."""
        user, created = self._table.user_id, self._table.created_at
        if user is None or created is None:
            return
        for users in self._database.owners.with_more_than(more_than):
            for some in batches_by_weight(users, lambda row: row.sessions, _BEGINNINGS_AT_ONCE):
                yield self._begun([row.owner for row in some], user, created)

    def _begun(
        self, users: Collection[Any], user: sa.ColumnElement[Any], created: TimeExpression
    ) -> dict[Any, list[datetime]]:
        query = sa.select(user, created.value).where(self._database.live, self._table.user_in(users))
        # Users are read together only if they have fewer sessions than this; of one with more, the newest count.
        query = query.where(created.instant.is_not(None)).order_by(created.instant.desc())
        times: dict[Any, list[datetime]] = {}
        for row in self._database.fetch(query.limit(_MOST_BEGINNINGS)):
            owner, value = tuple(row)
            moment = created.decode(value) if value is not None else None
            if moment is not None:
                times.setdefault(owner, []).append(moment)
        return times

    def count_of_users(self, users: Collection[Any]) -> int:
        """How many live sessions these users have."""
        user = self._table.user_id
        if user is None or not users:
            return 0
        query = sa.select(sa.func.count()).select_from(self._table.clause)
        return int(self._database.fetch(query.where(self._database.live, self._table.user_in(users)))[0][0])

    def pages_of_users(self, users: Collection[Any], began_before: datetime) -> Iterator[list[Session]]:
        """All sessions of these users, live or not, a batch at a time; without those that began later."""
        query = sa.select(*self._table.session_columns).where(self._of_users(users, began_before))
        return self._database.read(query, self._table.id)

    def delete_of_users(self, sessions: Sequence[Session], users: Collection[Any], began_before: datetime) -> Deletion:
        """Deletes those of the sessions that still are these users', and did not begin anew."""
        return self._database.delete_if(sessions, self._of_users(users, began_before), Cause.ABNORMAL)

    def delete_matching(self, sessions: Sequence[Session], condition: sa.ColumnElement[bool]) -> Deletion:
        """Deletes those of the sessions that still meet the condition."""
        return self._database.delete_if(sessions, condition, Cause.ABNORMAL)

    def _of_users(self, users: Collection[Any], began_before: datetime) -> sa.ColumnElement[bool]:
        user, created = self._table.user_id, self._table.created_at
        if user is None:
            return sa.false()
        mine = self._table.user_in(users)
        if created is None:
            return mine
        return sa.and_(mine, sa.or_(created.instant.is_(None), created.before(began_before)))

    # --- usage ---------------------------------------------------------------------------------------------------

    def count(self, moments: Collection[datetime]) -> Counts:
        """Counts all sessions in one pass, and when they began; see :func:`stores.sql.counting.count_sessions`."""
        return self._database.count(moments)

    def count_users(self) -> int:
        """How many users have a live session."""
        return self._database.owners.count_users()

    def count_owners(self, limit: int, exempt: Collection[str], bounds: Sequence[int]) -> Owners:
        """Counts users and what they have too many of, in one pass; see :meth:`OwnerQueries.count`."""
        return self._database.owners.count(limit, exempt, bounds, duplicates=True)

    def usage_by_client(self, since: datetime) -> list[ClientUsage]:
        """The live sessions by kind of client: as many rows as there are kinds at most."""
        name = sa.func.lower(_or_null(self._client))
        times = (self._table.created_at, self._table.last_accessed_at)
        begun, used = [_count_if(sa.not_(t.before(since))) if t else sa.literal_column("0") for t in times]
        # First by each client as it is: there are far fewer of them than sessions, and each is sorted once.
        each = (
            sa.select(name.label("name"), sa.func.count().label("active"), begun.label("begun"), used.label("used"))
            .select_from(self._table.clause)
            .where(self._database.live)
            .group_by(name)
            .subquery()
        )
        kind = sa.case(
            (sa.or_(each.c.name.is_(None), each.c.name == ""), UNKNOWN),
            *((sa.or_(*(each.c.name.contains(p, autoescape=True) for p in parts)), kind) for kind, parts in FAMILIES),
            else_=OTHER,
        )
        kinds = sa.select(kind.label("kind"), each.c.active, each.c.begun, each.c.used).subquery()
        sums = [sa.func.sum(column) for column in (kinds.c.active, kinds.c.begun, kinds.c.used)]
        rows = self._database.fetch(sa.select(kinds.c.kind, *sums).group_by(kinds.c.kind).order_by(kinds.c.kind))
        return [ClientUsage(row[0], *map(int, row[1:])) for row in rows]

    # --- settings ------------------------------------------------------------------------------------------------

    def settings_of_nobody(self) -> dict[Scope, int]:
        """How many settings, by scope, name somebody whom no session belongs to; scopes not mapped are left out."""
        found: dict[Scope, int] = {}
        subject = exact_subject(self._table)
        for scope, column in subjects(self._table).items():
            known = sa.select(sa.literal(1)).select_from(self._table.clause).where(column == subject)
            query = sa.select(sa.func.count()).select_from(settings)
            query = query.where(settings.c.scope == scope.value, ~known.correlate(settings).exists())
            found[scope] = int(self._database.fetch(query)[0][0])
        return found

    @property
    def scopes(self) -> frozenset[Scope]:
        """The scopes of settings that can apply to the table's sessions."""
        return frozenset({Scope.GLOBAL, *subjects(self._table)})


def _or_null(column: sa.ColumnElement[Any] | None) -> sa.ColumnElement[Any]:
    return sa.cast(sa.null(), sa.Text) if column is None else column


def _or_false(condition: sa.ColumnElement[bool] | None) -> sa.ColumnElement[bool]:
    return sa.false() if condition is None else condition


def _count_if(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.count(sa.case((condition, 1)))
