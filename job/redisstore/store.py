"""The sessions in Redis: many per command, and no command that keeps other clients waiting."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from job.clock import RunClock
from job.redisstore import scripts
from job.redisstore.batches import batches, batches_by_weight
from job.redisstore.contents import ContentReader, Marked
from job.redisstore.java import decode_text
from job.redisstore.keys import KeyNames
from job.redisstore.link import Argument, Link
from job.redisstore.payload import UNKNOWN, Content
from job.redisstore.server import RedisServer
from job.sessions import Session
from policy import stores
from policy.spec import Retry

# What SCAN looks at in one call.
_SCAN_COUNT = 1000
# Keys in one command or pipeline: Redis serves nobody else during a command.
_GROUP = 500
# Read by one script.
_BYTES_AT_ONCE = 4 * 2**20
# Members of one index in one answer: few at first, for most users have few; more where there is more.
_FIRST_MEMBERS = 100
_MORE_MEMBERS = 1000
_LARGE_INDEXES_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class KeyStates:
    """What there is under some session keys, by session id.

    Attributes:
        sessions: a string or a hash.
        without_ttl: those of the sessions that would stay for ever.
        gone: nothing.
        ttls: of the sessions, how long they would stay, in milliseconds; scripts.NO_TTL for ever.
    """

    sessions: set[str] = field(default_factory=set)
    without_ttl: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    ttls: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A session id in a user's index.

    Attributes:
        key: key of the index.
        session_id: whose entry it is.
        member: the entry as it is written; None for the id as it is.
    """

    key: bytes
    session_id: str
    member: bytes | None = None


@dataclass(frozen=True, slots=True)
class IndexPage:
    """Some entries of user indexes.

    Attributes:
        entries: the entries; those that are neither UTF-8 nor a Java string are left out.
        wrong_type: how many keys were found that are named like an index, but are no sets.
    """

    entries: list[IndexEntry]
    wrong_type: int = 0


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed; less than there was if a command had to be repeated.

    Attributes:
        session_keys: session keys.
        index_entries: entries of user indexes.
    """

    session_keys: int = 0
    index_entries: int = 0


@dataclass(frozen=True, slots=True)
class Unchanged:
    """What became of sessions that were to go if they had not changed.

    Attributes:
        deleted: those that are gone now.
        gone: those that were not there any more.
    """

    deleted: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


class RedisStore:
    """Implements :class:`job.sessions.RedisSessions`, and what the synchronisation needs besides.

    All methods raise RedisUnavailableError if Redis cannot be reached or keeps failing, and ConfigurationError if it
    refuses the login or a command. Each may be called again after that: what was done stays done.

    Args:
        link: from :func:`job.redisstore.connect.connect`.
        store: how keys are named and content is read.
        retry: how often and after which pause a command is tried again.
        clock: of the run.
        log: of the run.

    Raises:
        ConfigurationError: the key templates cannot be told apart.
    """

    def __init__(self, link: Link, store: stores.RedisStore, retry: Retry, clock: RunClock, log: Any) -> None:
        self._names = KeyNames.parse(store.keys)
        self._server = RedisServer(link, retry, clock, log)
        self._reader = ContentReader(self._server, store.fields)

    @property
    def server(self) -> RedisServer:
        """Where the sessions are, for what the rules read besides."""
        return self._server

    @property
    def names(self) -> KeyNames:
        """How keys are named."""
        return self._names

    # --- reading -------------------------------------------------------------------------------------------------

    def server_time(self) -> datetime:
        """The time by the clock of Redis; in a cluster by the clock that is furthest behind.

        So a session is never taken for older than any of the servers thinks it is.
        """
        return min(self.server_times())

    def server_times(self) -> list[datetime]:
        """The time by the clock of each server that holds keys."""
        return self._server.times()

    def session_pages(self) -> Iterator[list[str]]:
        """The ids of all keys that are named like a session's, a page at a time.

        A key that exists throughout is found. It may be found again on a later page, if Redis resizes its table. Where
        a replica takes over or slots move meanwhile, a key may be missed, or found again.
        """
        for keys in self._server.scan(self._names.session.pattern, _SCAN_COUNT):
            ids = (self._names.session_id(key) for key in keys)
            yield list(dict.fromkeys(i for i in ids if i is not None))

    def inspect(self, ids: Iterable[str]) -> KeyStates:
        """What there is under the keys of these sessions. An id that can have no session key is in none of the sets."""
        states = KeyStates()
        keys = self._keys(ids)
        for group in batches(keys, _GROUP):
            for session_id, state in zip(
                group, self._server.evaluate(scripts.INSPECT, [keys[i] for i in group]), strict=True
            ):
                if state == scripts.GONE:
                    states.gone.add(session_id)
                elif state != scripts.OTHER_TYPE:
                    states.sessions.add(session_id)
                    states.ttls[session_id] = state
                    if state == scripts.NO_TTL:
                        states.without_ttl.add(session_id)
        return states

    def idle_at_least(self, ids: Iterable[str], seconds: int) -> set[str]:
        """Those of the sessions whose keys were, for certain, neither read nor written for this long."""
        idle: set[str] = set()
        keys = self._keys(ids)
        for group in batches(keys, _GROUP):
            for session_id, found in zip(
                group, self._server.evaluate(scripts.IDLE, [keys[i] for i in group]), strict=True
            ):
                # Redis counts in steps of a second: a second more is needed to be sure.
                if found > seconds:
                    idle.add(session_id)
        return idle

    def contents(self, ids: Iterable[str]) -> dict[str, Content]:
        """What the content of these sessions says. Sessions that are not there are left out."""
        return self._reader.read(self._keys(ids))

    def marked(self, ids: Iterable[str]) -> dict[str, Marked]:
        """The content of these sessions, so that :meth:`delete_unchanged` knows it again."""
        return self._reader.read_marked(self._keys(ids))

    def last_accesses(self, keys: Sequence[str]) -> Mapping[str, datetime]:
        """When Redis says that these sessions were last used; sessions it knows nothing about are left out."""
        return {
            session_id: content.last_accessed_at
            for session_id, content in self.contents(keys).items()
            if content.last_accessed_at is not None
        }

    def access_log_pages(self) -> Iterator[list[str]]:
        """The ids of all sessions that have an access log, a page at a time; one may be found again on a later page."""
        if self._names.access_log is None:
            return
        for keys in self._server.scan(self._names.access_log.pattern, _SCAN_COUNT):
            ids = (self._names.access_log_owner(key) for key in keys)
            yield list(dict.fromkeys(i for i in ids if i is not None))

    def index_pages(self) -> Iterator[IndexPage]:
        """All entries of all user indexes, a page at a time; an entry may be found more than once."""
        template = self._names.user_index
        if template is None:
            return
        for keys in self._server.scan(template.pattern, _SCAN_COUNT):
            indexes = dict.fromkeys(key for key in keys if template.name(key) is not None)
            for group in batches(indexes, _GROUP):
                page, unread = self._read_indexes(dict.fromkeys(group, 0), _FIRST_MEMBERS)
                yield page
                for large in batches(unread.items(), _LARGE_INDEXES_AT_ONCE):
                    cursors = dict(large)
                    while cursors:
                        page, cursors = self._read_indexes(cursors, _MORE_MEMBERS)
                        yield page

    def indexes_over(self, limit: int) -> Iterator[tuple[str, Iterator[list[str]]]]:
        """The users whose index has more entries than that, with the entries, a page at a time."""
        template = self._names.user_index
        if template is None:
            return
        for keys in self._server.scan(template.pattern, _SCAN_COUNT):
            users = {key: user for key in keys if (user := template.name(key)) is not None}
            for group in batches(users, _GROUP):
                sizes = self._server.pipeline([("SCARD", key) for key in group])
                for key, size in zip(group, sizes, strict=True):
                    if (size or 0) > limit:  # None: the key is not a set
                        yield users[key], self._members(key)

    def _members(self, key: bytes) -> Iterator[list[str]]:
        cursors = {key: 0}
        while cursors:
            page, cursors = self._read_indexes(cursors, _MORE_MEMBERS)
            yield list(dict.fromkeys(entry.session_id for entry in page.entries))

    def _read_indexes(self, cursors: Mapping[bytes, int], count: int) -> tuple[IndexPage, dict[bytes, int]]:
        """One step further in each of these indexes; and where those that have more go on."""
        replies = self._server.pipeline([("SSCAN", key, cursor, "COUNT", count) for key, cursor in cursors.items()])
        entries: list[IndexEntry] = []
        unread: dict[bytes, int] = {}
        wrong_type = 0
        for key, reply in zip(cursors, replies, strict=True):
            if reply is None:
                # An access log may be named like an index; that is nothing to tell about.
                wrong_type += not self._names.is_access_log(key)
                continue
            cursor, members = reply
            entries += [entry for member in members if (entry := _entry(key, member)) is not None]
            if cursor:
                unread[key] = cursor
        return IndexPage(entries, wrong_type), unread

    # --- changing ------------------------------------------------------------------------------------------------

    def add_ttls(self, seconds: Mapping[str, float]) -> int:
        """Gives each of these sessions a TTL, unless it has one by now. Returns how many got one."""
        keys = self._keys(seconds)
        added = 0
        for group in batches(keys, _GROUP):
            milliseconds = [int(seconds[i] * 1000) for i in group]
            added += sum(self._server.evaluate(scripts.ADD_TTL, [keys[i] for i in group], milliseconds))
        return added

    def delete(self, sessions: Sequence[Session]) -> int:
        """Deletes session keys, access logs and index entries of sessions whose rows are gone.

        Returns how many session keys there were.
        """
        return self.remove(sessions).session_keys

    def remove(self, sessions: Sequence[Session]) -> Removed:
        """As :meth:`delete`, and tells of the index entries, too."""
        session_keys = index_entries = 0
        for group in batches(sessions, _GROUP):
            index_entries += self.remove_index_entries(self._index_entries(group))
            logs = [key for s in group if (key := self._names.access_log_key(s.key)) is not None]
            keys = list(self._keys(s.key for s in group).values())
            # The session key goes last: while it is there, the next run finds what this one may not have finished.
            self._server.unlink(logs)
            session_keys += self._server.unlink(keys)
        return Removed(session_keys, index_entries)

    def delete_unchanged(self, marked: Mapping[str, Marked], ttls: Mapping[str, int]) -> Unchanged:
        """Deletes the keys of those sessions that are what they were when they were read, at the moment they go.

        Args:
            marked: their content, from :meth:`marked`.
            ttls: their TTLs, from :meth:`inspect`; a session whose TTL was prolonged since is in use.
        """
        outcome = Unchanged()
        fields = self._reader.hash_fields
        keys = self._keys(i for i, content in marked.items() if content.mark)
        for some in batches(keys, _GROUP):
            for group in batches_by_weight(some, lambda i: marked[i].size, _BYTES_AT_ONCE):
                arguments: list[Argument] = []
                for i in group:
                    arguments += [marked[i].mark, ttls[i], *fields]
                found = self._server.evaluate(scripts.DELETE_UNCHANGED, [keys[i] for i in group], arguments)
                outcome.deleted.extend(i for i, state in zip(group, found, strict=True) if state == 1)
                outcome.gone.extend(i for i, state in zip(group, found, strict=True) if state == scripts.GONE)
        return outcome

    def remove_residue(self, sessions: Sequence[Session]) -> int:
        """Removes access logs and index entries of sessions without keys. Returns how many entries there were."""
        self.remove_access_logs(session.key for session in sessions)
        return self.remove_index_entries(self._index_entries([s for s in sessions if s.user_id is not None]))

    def remove_access_logs(self, ids: Iterable[str]) -> int:
        """Removes the access logs of these sessions. Returns how many there were."""
        keys = [key for i in ids if (key := self._names.access_log_key(i)) is not None]
        return sum(self._server.unlink(group) for group in batches(keys, _GROUP))

    def remove_index_entries(self, entries: Iterable[IndexEntry]) -> int:
        """Removes these entries. Returns how many there were."""
        removed = 0
        for group in batches(entries, _GROUP):
            by_index: defaultdict[bytes, list[bytes]] = defaultdict(list)
            for entry in group:
                by_index[entry.key].append(entry.member or entry.session_id.encode("utf-8", "surrogatepass"))
            replies = self._server.pipeline([("SREM", key, *members) for key, members in by_index.items()])
            removed += sum(reply or 0 for reply in replies)  # None: the key is not a set
        return removed

    def close(self) -> None:
        """Closes the connections."""
        self._server.close()

    # --- inside --------------------------------------------------------------------------------------------------

    def _keys(self, ids: Iterable[str]) -> dict[str, bytes]:
        return {i: key for i in ids if (key := self._names.session_key(i)) is not None}

    def _index_entries(self, sessions: Sequence[Session]) -> Iterator[IndexEntry]:
        if self._names.user_index is None:
            return
        # Without a user column only the session itself tells whose it is.
        contents = self.contents(s.key for s in sessions if s.user_id is None)
        for session in sessions:
            user = str(session.user_id) if session.user_id is not None else contents.get(session.key, UNKNOWN).user_id
            key = self._names.user_index_key(user) if user else None
            if key is not None:
                yield IndexEntry(key, session.key)


def _entry(key: bytes, member: bytes) -> IndexEntry | None:
    """An entry of an index; None if it is no text."""
    try:
        return IndexEntry(key, member.decode())
    except UnicodeDecodeError:
        session_id = decode_text(member)
        return None if session_id is None else IndexEntry(key, session_id, member)
