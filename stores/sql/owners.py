"""Queries about users: how many live sessions each has. Nothing is read session by session.

Each statement is one pass over the table with one GROUP BY. A list of users is read many at a time, because every part
of it costs another pass; and never so many that memory grows with the table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from stores.sql.mapping.table import MappedTable

USERS_AT_ONCE = 50_000
"""Users that are listed in one statement, and held in memory."""

Fetch = Callable[[sa.Executable], Sequence[sa.Row[Any]]]


@dataclass(frozen=True, slots=True)
class Owners:
    """Counts of users, from one pass over the table.

    Attributes:
        users: users with a live session; an empty text counts as one of them.
        owners: the same without the empty text, which is no owner.
        most: the most live sessions that one owner has.
        reaching: how many owners have at least so many live sessions, for each bound asked for.
        over_limit: how many live sessions are over their owner's limit.
        duplicates: how many live sessions have another one of the same owner on the same client that is to be kept.
        over_limit_apart: how many would be over the limit if the duplicates were gone.
    """

    users: int = 0
    owners: int = 0
    most: int = 0
    reaching: tuple[int, ...] = ()
    over_limit: int = 0
    duplicates: int = 0
    over_limit_apart: int = 0


class OwnerQueries:
    """Queries about the owners of a session table.

    Args:
        table: the session table.
        live: whether a session is live.
        allowed: how many sessions the row's user may have; None where all may have the same number.
        fetch: all rows of a query that finds few.
    """

    def __init__(
        self,
        table: MappedTable,
        live: sa.ColumnElement[bool],
        allowed: sa.ColumnElement[int] | None,
        fetch: Fetch,
    ) -> None:
        self._table = table
        self._live = live
        self._allowed = allowed
        self._fetch = fetch

    @cached_property
    def client(self) -> sa.ColumnElement[Any] | None:
        """The client, if mapped, so that two clients are never taken for one."""
        client = self._table.client
        return None if client is None else self._table.dialect.exact(client, sa.Text())

    def count_users(self) -> int:
        """How many users have a live session."""
        if self._table.user_id is None:
            return 0
        return int(self._fetch(sa.select(sa.func.count()).select_from(self._per_owner().subquery()))[0][0])

    def count(
        self,
        limit: int,
        exempt: Collection[str] = (),
        bounds: Sequence[int] = (),
        *,
        duplicates: bool = False,
    ) -> Owners:
        """Counts users and what they have too many of.

        Args:
            limit: sessions a user may have; 0 for any number.
            exempt: users without a limit.
            bounds: of :attr:`Owners.reaching`.
            duplicates: whether to count duplicates, where owner and client are mapped: that has to sort by both.
        """
        if self._table.user_id is None:
            return Owners(reaching=(0,) * len(bounds))
        counts_pairs = duplicates and self.client is not None
        per = (self._per_owner_and_client() if counts_pairs else self._per_owner()).subquery("per_owner")
        owned = self._owned(per.c.owner)
        more = per.c.duplicates if counts_pairs else _number(0)
        columns = [
            sa.func.count(),
            _count_if(owned),
            sa.func.coalesce(sa.func.max(sa.case((owned, per.c.sessions))), 0),
            *(_count_if(sa.and_(owned, per.c.sessions >= bound)) for bound in bounds),
            _sum_if(owned, more),
        ]
        if limit:
            limited = self._limited(per.c.owner, exempt)
            excess = per.c.sessions - self._allowance(per, limit)
            columns += [_sum_if(sa.and_(limited, each > 0), each) for each in (excess, excess - more)]
        row = [int(value) for value in self._fetch(sa.select(*columns).select_from(per))[0]]
        last = 3 + len(bounds)
        over, apart = row[last + 1 :] if limit else (0, 0)
        return Owners(row[0], row[1], row[2], tuple(row[3:last]), over, row[last], apart)

    def over_limit(self, limit: int, exempt: Collection[str]) -> Iterator[list[Any]]:
        """The users with more live sessions than their limit, in their order."""

        def of(after: Any) -> sa.Select[Any]:
            per = self._per_owner(after).subquery("per_owner")
            too_many = per.c.sessions > self._allowance(per, limit)
            return sa.select(per.c.owner).where(self._limited(per.c.owner, exempt), too_many)

        for rows in self._lists(of):
            yield [row[0] for row in rows]

    def with_more_than(self, normal: int) -> Iterator[Sequence[sa.Row[Any]]]:
        """The users with more live sessions than a number, and how many they have, in their order."""

        def of(after: Any) -> sa.Select[Any]:
            per = self._per_owner(after).subquery("per_owner")
            return sa.select(per.c.owner, per.c.sessions).where(self._owned(per.c.owner), per.c.sessions > normal)

        return self._lists(of)

    def with_duplicates(self) -> Iterator[list[Any]]:
        """The users with several live sessions on one client, in their order."""

        def of(after: Any) -> sa.Select[Any]:
            pairs = self._pairs(after).subquery("pairs")
            several = sa.and_(self._owned(pairs.c.owner), _is_known(pairs.c.client), pairs.c.sessions > 1)
            return sa.select(pairs.c.owner).where(several).distinct()

        for rows in self._lists(of):
            yield [row[0] for row in rows]

    def _lists(self, of: Callable[[Any], sa.Select[Any]]) -> Iterator[Sequence[sa.Row[Any]]]:
        after: Any = None
        while True:
            # Materialized before the limit: a planner that sees the limit would choose an index scan on the users,
            # and fetch the rows one by one.
            found = self._table.dialect.materialized(of(after).cte("found"))
            rows = self._fetch(sa.select(*found.c).order_by(found.c.owner).limit(USERS_AT_ONCE))
            if rows:
                yield rows
            if len(rows) < USERS_AT_ONCE:
                return
            after = rows[-1].owner

    # --- one row per user ----------------------------------------------------------------------------------------

    def _rows(self, after: Any) -> sa.Select[Any]:
        user = self._table.user_id
        assert user is not None
        columns = [user.label("owner")]
        if self._allowed is not None:
            columns.append(self._allowed.label("allowed"))
        query = sa.select(*columns).where(self._live, user.is_not(None))
        return query if after is None else query.where(user > sa.literal(after))

    def _per_owner(self, after: Any = None) -> sa.Select[Any]:
        rows = self._rows(after).subquery("live")
        columns = [rows.c.owner, sa.func.count().label("sessions")]
        if self._allowed is not None:
            columns.append(sa.func.min(rows.c.allowed).label("allowed"))
        return sa.select(*columns).group_by(rows.c.owner)

    def _pairs(self, after: Any = None) -> sa.Select[Any]:
        client = self.client
        assert client is not None
        rows = self._rows(after).add_columns(client.label("client")).subquery("live")
        columns = [rows.c.owner, rows.c.client, sa.func.count().label("sessions")]
        if self._allowed is not None:
            columns.append(sa.func.min(rows.c.allowed).label("allowed"))
        return sa.select(*columns).group_by(rows.c.owner, rows.c.client)

    def _per_owner_and_client(self) -> sa.Select[Any]:
        pairs = self._pairs().subquery("pairs")
        columns = [
            pairs.c.owner,
            sa.func.sum(pairs.c.sessions).label("sessions"),
            _sum_if(_is_known(pairs.c.client), pairs.c.sessions - 1).label("duplicates"),
        ]
        if self._allowed is not None:
            columns.append(sa.func.min(pairs.c.allowed).label("allowed"))
        return sa.select(*columns).group_by(pairs.c.owner)

    def _owned(self, owner: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """Whether it is an owner: an empty text is none, for strangers must not become one user."""
        return self._table.owner_text(owner) != ""

    def _limited(self, owner: sa.ColumnElement[Any], exempt: Collection[str]) -> sa.ColumnElement[bool]:
        owned = self._owned(owner)
        return sa.and_(owned, sa.cast(owner, sa.Text).not_in(sorted(exempt))) if exempt else owned

    def _allowance(self, per: sa.Subquery, limit: int) -> sa.ColumnElement[Any]:
        """How many sessions a user may have: the smallest number that any of their sessions says."""
        return _number(limit) if self._allowed is None else per.c.allowed


def _number(value: int) -> sa.ColumnElement[int]:
    return sa.literal(value, sa.BigInteger())


def _is_known(client: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Whether it says on which client a session began: an empty text does not."""
    return sa.and_(client.is_not(None), client != "")


def _count_if(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.count(sa.case((condition, 1)))


def _sum_if(condition: sa.ColumnElement[bool], value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.coalesce(sa.func.sum(sa.case((condition, value))), 0)
