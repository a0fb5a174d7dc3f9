"""Looks sessions up in all stores of a policy (R3.6)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa

from stores.model.batches import batches
from stores.model.sessions import Session
from stores.redis.store import RedisStore
from stores.sql.mapping.table import MappedTable
from stores.sql.store import SessionDatabase
from stores.waiting.clock import RunClock

_GROUP = 500
_MEMBERS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class FoundSession:
    """A session, and which stores it is in.

    Attributes:
        session: its id, owner and times; the latest access that any store knows of.
        live: whether it has not expired; one that only Redis has counts as live until a run deletes it as orphaned.
        in_database: whether it has a row.
        in_redis: whether it has a session key.
    """

    session: Session
    live: bool
    in_database: bool
    in_redis: bool


@dataclass(frozen=True, slots=True)
class ActiveCounts:
    """How many sessions and users there are.

    Attributes:
        active: live sessions.
        expired: rows that the next run will delete.
        users: users with a live session; None where that cannot be counted.
    """

    active: int
    expired: int
    users: int | None


class SessionLookup:
    """Finds sessions of a policy, in whichever stores it has.

    All methods raise what the stores raise: DatabaseUnavailableError, RedisUnavailableError, ConfigurationError.

    Args:
        database: the database, if any.
        redis: Redis, if any.
        clock: asked now and then whether to stop.
    """

    def __init__(self, database: SessionDatabase | None, redis: RedisStore | None, clock: RunClock) -> None:
        self._database = database
        self._redis = redis
        self._clock = clock

    def first(self, limit: int) -> list[FoundSession]:
        """The first sessions, in the order of their ids; with a database, those that have a row."""
        if self._database:
            pages = self._database.read(sa.select(*self._database.table.session_columns), self._database.table.id)
            return self._in_database(list(islice((s for page in pages for s in page), limit)))
        return self._in_redis_only(list(dict.fromkeys(islice(self._scanned(), limit))))

    def of_user(self, user: str) -> list[FoundSession]:
        """All sessions of a user, in all stores."""
        rows = list(self._rows_of(user))
        known = {session.key for session in rows}
        others = [i for i in self._redis_ids_of(user) if i not in known]
        # What has a row belongs to whom the row says, whatever an index entry says.
        foreign = self._database.existing(others) if self._database and others else set[str]()
        return [*self._in_database(rows), *self._in_redis_only((i for i in others if i not in foreign), user)]

    def by_id(self, session_id: str) -> FoundSession | None:
        """The session with this id; None if there is none in any store."""
        if self._database:
            table = self._database.table
            wanted = table.parse_key(session_id)
            if wanted is not None:
                query = sa.select(*table.session_columns).where(table.id_in([wanted]))
                rows = [table.session(row) for row in self._database.fetch(query)]
                if found := self._in_database([row for row in rows if row.id == wanted]):
                    return found[0]
        return next(iter(self._in_redis_only([session_id])), None)

    def search(self, matches: Callable[[str], bool]) -> FoundSession | None:
        """The first session whose id matches; None if there is none in any store. Reads the ids of all sessions.

        Args:
            matches: says whether an id, as Redis keys have it, is the one.
        """
        for key in self._all_ids():
            if matches(key):
                # It may have ended since.
                return self.by_id(key)
        return None

    def count_active(self) -> ActiveCounts:
        """How many sessions and users there are."""
        if self._database:
            census = self._database.totals()
            return ActiveCounts(census.active, census.expired, census.users if self._has_users else None)
        # Redis may show a key twice while it resizes its table; remembering all ids would take too much memory.
        return ActiveCounts(sum(1 for _ in self._scanned()), 0, None)

    @property
    def knows_users(self) -> bool:
        """Whether the sessions of a user can be found."""
        return self._has_users if self._database else True

    @property
    def _has_users(self) -> bool:
        return self._database is not None and self._database.table.user_id is not None

    def _rows_of(self, user: str) -> Iterator[Session]:
        if not self._database or not self._has_users:
            return
        table = self._database.table
        wanted = user_value(table, user)
        if wanted is None:
            return
        query = sa.select(*table.session_columns).where(table.user_in([wanted]))
        for page in self._database.read(query, table.id):
            # Some databases find more than was asked for: another case, or a number at the beginning of a text.
            yield from (session for session in page if session.user_id == wanted)

    def _redis_ids_of(self, user: str) -> list[str]:
        if not self._redis:
            return []
        names, key = self._redis.names, self._redis.names.user_index_key(user)
        if names.user_index is not None:
            return list(dict.fromkeys(self._members(key))) if key is not None else []
        found: dict[str, None] = {}
        for group in batches(self._scanned(), _GROUP):
            found |= {i: None for i, content in self._redis.contents(group).items() if content.user_id == user}
        return list(found)

    def _members(self, key: bytes) -> Iterator[str]:
        assert self._redis is not None
        cursor: int | None = None
        while cursor != 0:
            (reply,) = self._redis.server.pipeline([("SSCAN", key, cursor or 0, "COUNT", _MEMBERS_AT_ONCE)])
            if reply is None:
                return  # no set
            cursor = int(reply[0])
            for member in reply[1]:
                try:
                    yield member.decode()
                except UnicodeDecodeError:
                    continue

    def _all_ids(self) -> Iterator[str]:
        """The ids of all sessions of all stores, a page at a time; those in both are there twice."""
        if self._database:
            for page in self._database.read(sa.select(*self._database.table.session_columns), self._database.table.id):
                self._clock.checkpoint()
                yield from (session.key for session in page)
        for number, session_id in enumerate(self._scanned()):
            if number % _GROUP == 0:
                self._clock.checkpoint()
            yield session_id

    def _scanned(self) -> Iterator[str]:
        if self._redis:
            for page in self._redis.session_pages():
                yield from page

    def _in_database(self, sessions: Sequence[Session]) -> list[FoundSession]:
        if self._database is None:
            return []
        table, found = self._database.table, list[FoundSession]()
        for group in batches(sessions, _GROUP):
            query = sa.select(table.id).where(table.id_in([s.id for s in group]), self._database.live)
            live = {row[0] for row in self._database.fetch(query)}
            contents = self._redis.contents(s.key for s in group) if self._redis else {}
            keys = self._redis.key_states(s.key for s in group).sessions if self._redis else set[str]()
            for session in group:
                content = contents.get(session.key)
                used = _latest(session.last_accessed_at, content.last_accessed_at if content else None)
                found.append(
                    FoundSession(replace(session, last_accessed_at=used), session.id in live, True, session.key in keys)
                )
        return found

    def _in_redis_only(self, ids: Iterable[str], user: str | None = None) -> list[FoundSession]:
        if not self._redis:
            return []
        found: list[FoundSession] = []
        for group in batches(list(ids), _GROUP):
            there, contents = self._redis.key_states(group).sessions, self._redis.contents(group)
            for session_id in group:
                content = contents.get(session_id)
                # An index entry may be stale: what a session itself says of its user counts.
                theirs = user is not None and content is not None and content.user_id not in (None, user)
                if session_id in there and not theirs:
                    session = Session(
                        session_id,
                        content.user_id if content and content.user_id else user,
                        content.created_at if content else None,
                        content.last_accessed_at if content else None,
                    )
                    found.append(FoundSession(session, live=True, in_database=False, in_redis=True))
        return found


def user_value(table: MappedTable, user: str) -> Any:
    """A user's id as the column's type has it; None if the column cannot hold it."""
    mapping = table.table.columns.user_id
    if mapping is None or "\0" in user:
        return None
    kind = table.types[mapping.name]
    try:
        if not mapping.path and isinstance(kind, sa.Integer):
            return int(user) if str(int(user)) == user else None  # 007 is no integer as a database writes it
        if not mapping.path and isinstance(kind, sa.Uuid):
            return uuid.UUID(user)
    except ValueError:
        return None
    return user


def _latest(*moments: datetime | None) -> datetime | None:
    return max((m for m in moments if m is not None), default=None)
