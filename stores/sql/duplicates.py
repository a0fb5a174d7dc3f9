"""Duplicates in SQL: several live sessions of one user on one client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from stores.model.batches import batches
from stores.model.sessions import Cause, Deletion, Session
from stores.sql.store import SessionDatabase


class DuplicateQueries:
    """Lists and deletes duplicates, on the connection of the session database.

    Args:
        database: the session table of the run.
    """

    def __init__(self, database: SessionDatabase) -> None:
        self._database = database
        self._table = database.table
        self._client = database.owners.client

    @property
    def are_known(self) -> bool:
        """Whether owner and client of sessions are mapped."""
        return self._table.user_id is not None and self._client is not None

    @property
    def newest_is_known(self) -> bool:
        """Whether it is mapped when sessions began, and so which one is to be kept."""
        return self._table.created_at is not None

    def pages(self) -> Iterator[list[Session]]:
        """The live sessions that a newer one of the same user on the same client replaces, a batch at a time."""
        if not (self.are_known and self.newest_is_known):
            return
        for listed in self._database.owners.with_duplicates():
            for users in batches(listed, self._database.batch_size):
                ranking = self._newest_first(users)
                yield from self._database.read(sa.select(ranking).where(ranking.c.rank > 1), ranking.c.id)

    def delete(self, sessions: Sequence[Session]) -> Deletion:
        """Deletes those of the sessions that a newer one still replaces."""
        created = self._table.created_at
        assert created is not None
        ranking = self._newest_first(list(dict.fromkeys(s.user_id for s in sessions)))
        return self._database.delete_ranked(sessions, ranking, 1, created.column, Cause.DUPLICATE)

    def _newest_first(self, users: Sequence[Any]) -> sa.Subquery:
        user, client, created = self._table.user_id, self._client, self._table.created_at
        assert user is not None
        assert client is not None
        assert created is not None
        # A session whose beginning is not known is the last to go.
        order = [sa.case((created.instant.is_(None), 0), else_=1), created.instant.desc(), self._table.id]
        rank = sa.func.row_number().over(partition_by=[user, client], order_by=order)
        comparable = (self._database.live, self._table.has_owner, client.is_not(None), client != "")
        return (
            sa.select(*self._table.session_columns, rank.label("rank"), created.column.label("seen"))
            .where(self._table.user_in(users), *comparable)
            .subquery("ranked")
        )
