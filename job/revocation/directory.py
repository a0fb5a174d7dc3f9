"""Looking sessions up in all stores, and revoking them in all stores (R3.6)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa

from stores.model.batches import batches
from stores.model.sessions import Cause, Session
from stores.redis.primary.lock import RedisLock
from stores.redis.store import RedisStore
from stores.sql.mapping.table import MappedTable
from stores.sql.store import SessionDatabase
from stores.waiting.clock import RunClock

_GROUP = 500
_MEMBERS_AT_ONCE = 1000
# A row that an application is working on is skipped by the statement that deletes, and tried again.
_ATTEMPTS = 10
_PAUSE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Entry:
    """A session and where it is.

    Attributes:
        session: its id, owner and times; the latest access that any store knows of.
        live: whether it is; a session that only Redis has is live until it is synchronised away.
        in_database: whether it has a row.
        in_redis: whether it has a session key.
    """

    session: Session
    live: bool
    in_database: bool
    in_redis: bool


@dataclass(frozen=True, slots=True)
class Totals:
    """How many sessions there are.

    Attributes:
        active: live sessions.
        expired: rows that the next run will delete.
        users: users with a live session; None where that cannot be counted.
    """

    active: int
    expired: int
    users: int | None


@dataclass(slots=True)
class Revoked:
    """What became of a revocation.

    Attributes:
        sessions: gone from all stores.
        left: could not be deleted, because an application holds on to their rows.
    """

    sessions: list[Session] = field(default_factory=list)
    left: list[Session] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Gone:
    """Some sessions that were revoked just now.

    Attributes:
        sessions: they are gone from all stores.
        rows: how many rows of the database went.
        keys: how many session keys of Redis went.
    """

    sessions: Sequence[Session]
    rows: int
    keys: int


def _tell_nobody(gone: Gone) -> None:
    """For callers who want the result only."""


class SessionDirectory:
    """The sessions of a policy, in whichever stores it has.

    All methods raise what the stores raise: DatabaseUnavailableError, RedisUnavailableError, ConfigurationError.

    Args:
        database: the database, if any.
        redis: Redis, if any.
        clock: for pauses.
        lock: on the sessions of a Redis without a database, if it was taken; a database keeps its own.
    """

    def __init__(
        self,
        database: SessionDatabase | None,
        redis: RedisStore | None,
        clock: RunClock,
        lock: RedisLock | None = None,
    ) -> None:
        self._database = database
        self._redis = redis
        self._clock = clock
        self._lock = lock

    # --- looking -------------------------------------------------------------------------------------------------

    def all(self, most: int) -> list[Entry]:
        """The first sessions there are, in the order of their ids; with a database, those that have a row."""
        if self._database:
            pages = self._database.read(sa.select(*self._database.table.session_columns), self._database.table.id)
            return self._entries(list(islice((s for page in pages for s in page), most)))
        return self._redis_only(list(dict.fromkeys(islice(self._scanned(), most))))

    def of_user(self, user: str) -> list[Entry]:
        """All sessions of a user, in all stores."""
        rows = list(self._rows_of(user))
        known = {session.key for session in rows}
        others = [i for i in self._redis_ids_of(user) if i not in known]
        # What has a row belongs to whom the row says, whatever an index entry says.
        foreign = self._database.existing(others) if self._database and others else set[str]()
        return [*self._entries(rows), *self._redis_only((i for i in others if i not in foreign), user)]

    def one(self, session_id: str) -> Entry | None:
        """The session with this id; None if there is none in any store."""
        if self._database:
            table = self._database.table
            wanted = table.parse_key(session_id)
            if wanted is not None:
                query = sa.select(*table.session_columns).where(table.id_in([wanted]))
                rows = [table.session(row) for row in self._database.fetch(query)]
                if found := self._entries([row for row in rows if row.id == wanted]):
                    return found[0]
        return next(iter(self._redis_only([session_id])), None)

    def first(self, wanted: Callable[[str], bool]) -> Entry | None:
        """The first session whose id is wanted; None if there is none in any store. Looks at every session there is.

        Args:
            wanted: judges an id, spelt as in Redis.
        """
        for key in self._all_ids():
            if wanted(key):
                # It may have ended since.
                return self.one(key)
        return None

    def count(self) -> Totals:
        """How many sessions there are."""
        if self._database:
            census = self._database.totals()
            return Totals(census.active, census.expired, census.users if self._has_users else None)
        # Redis may show a key twice while it resizes its table; remembering all ids would take too much memory.
        return Totals(sum(1 for _ in self._scanned()), 0, None)

    @property
    def knows_users(self) -> bool:
        """Whether sessions can be told by their users."""
        return self._has_users if self._database else True

    @property
    def _has_users(self) -> bool:
        return self._database is not None and self._database.table.user_id is not None

    # --- revoking ------------------------------------------------------------------------------------------------

    def revoke_user(self, user: str, tell: Callable[[Gone], None] = _tell_nobody) -> Revoked:
        """Deletes all sessions of a user from all stores, also those that begin meanwhile.

        Args:
            user: its id as it is stored.
            tell: called after each group, so that what went is known even if a later group fails.
        """
        result = Revoked()
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._clock.wait(_PAUSE_SECONDS)
            found = [entry.session for entry in self.of_user(user)]
            if not found:
                result.left = []
                return result
            self._revoke_once(found, result, tell)
            if not result.left:
                return result
        return result

    def revoke(self, sessions: Sequence[Session], tell: Callable[[Gone], None] = _tell_nobody) -> Revoked:
        """Deletes these sessions from all stores; tell as in :meth:`revoke_user`."""
        result = Revoked(left=list(sessions))
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._clock.wait(_PAUSE_SECONDS)
            self._revoke_once(result.left, result, tell)
            if not result.left:
                return result
        return result

    def _revoke_once(self, sessions: Sequence[Session], result: Revoked, tell: Callable[[Gone], None]) -> None:
        """The rows first: while a row is there, an application could write its session key anew."""
        result.left = []
        for group in batches(sessions, _GROUP):
            self._clock.checkpoint()
            if self._lock:
                self._lock.check()
            with_row: Collection[str] = set()
            left: Collection[str] = set()
            if self._database:
                with_row = self._database.existing([s.key for s in group])
                self._database.delete_if([s for s in group if s.key in with_row], sa.true(), Cause.REVOKED)
                left = self._database.existing(with_row) if with_row else set()
            gone = [s for s in group if s.key not in left]
            keys = self._redis.delete(gone) if self._redis else 0
            result.sessions += gone
            result.left += [s for s in group if s.key in left]
            if gone:
                tell(Gone(gone, len(with_row) - len(left), keys))

    # --- inside --------------------------------------------------------------------------------------------------

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
        """The ids of all sessions of all stores, a page at a time; those in both are told twice."""
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

    def _entries(self, sessions: Sequence[Session]) -> list[Entry]:
        if self._database is None:
            return []
        table, entries = self._database.table, list[Entry]()
        for group in batches(sessions, _GROUP):
            query = sa.select(table.id).where(table.id_in([s.id for s in group]), self._database.live)
            live = {row[0] for row in self._database.fetch(query)}
            contents = self._redis.contents(s.key for s in group) if self._redis else {}
            keys = self._redis.inspect(s.key for s in group).sessions if self._redis else set[str]()
            for session in group:
                content = contents.get(session.key)
                used = _latest(session.last_accessed_at, content.last_accessed_at if content else None)
                entries.append(
                    Entry(replace(session, last_accessed_at=used), session.id in live, True, session.key in keys)
                )
        return entries

    def _redis_only(self, ids: Iterable[str], user: str | None = None) -> list[Entry]:
        if not self._redis:
            return []
        entries: list[Entry] = []
        for group in batches(list(ids), _GROUP):
            there, contents = self._redis.inspect(group).sessions, self._redis.contents(group)
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
                    entries.append(Entry(session, live=True, in_database=False, in_redis=True))
        return entries


def user_value(table: MappedTable, user: str) -> Any:
    """A user's id as the column's type has it; None if the column cannot hold it."""
    mapping = table.table.columns.user_id
    if mapping is None or "\0" in user:
        return None
    kind = table.types[mapping.name]
    try:
        if not mapping.path and isinstance(kind, sa.Integer):
            return int(user) if str(int(user)) == user else None  # 007 is nobody's number
        if not mapping.path and isinstance(kind, sa.Uuid):
            return uuid.UUID(user)
    except ValueError:
        return None
    return user


def _latest(*moments: datetime | None) -> datetime | None:
    return max((m for m in moments if m is not None), default=None)
