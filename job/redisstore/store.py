"""The sessions in Redis: many per command, and no command that keeps other clients waiting."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
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
# Keys in one round trip.
_GROUP = 1000
# Keys counted together: only where one is missing they are looked at one by one.
_COUNTED_TOGETHER = 50
# Sessions in one answer to whoever reads all of them.
_PAGE = 1000
# Read by one script.
_BYTES_AT_ONCE = 4 * 2**20
# Members of one index in one answer: few at first, for most users have few; more where there is more.
_FIRST_MEMBERS = 100
_MORE_MEMBERS = 1000
_INDEXES_AT_ONCE = 250
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
        entries: the entries whose sessions have no key; those that are neither UTF-8 nor a Java string are left out.
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
            yield list(dict.fromkeys(self._names.session_ids(keys)))

    def state_pages(self) -> Iterator[KeyStates]:
        """What there is under all keys that are named like a session's; see :meth:`session_pages`."""
        ids: list[str] = []
        for page in self.session_pages():
            ids += page
            # Where most keys are something else's, a page of SCAN has few: whoever is asked about them has a life too.
            if len(ids) >= _PAGE:
                yield self.inspect(ids)
                ids = []
        if ids:
            yield self.inspect(ids)

    def inspect(self, ids: Iterable[str]) -> KeyStates:
        """What there is under the keys of these sessions. An id that can have no session key is in none of the sets."""
        states = KeyStates()
        for group in batches(self._names.session_keys(ids).items(), _GROUP):
            names = [session_id for session_id, _ in group]
            found = dict(zip(names, self._server.evaluate(scripts.INSPECT, [key for _, key in group]), strict=True))
            odd = {session_id: state for session_id, state in found.items() if state < 0}
            for session_id, state in odd.items():
                if state == scripts.NO_TTL:
                    states.without_ttl.add(session_id)
                    continue
                del found[session_id]
                if state == scripts.GONE:
                    states.gone.add(session_id)
            states.sessions.update(found)
            states.ttls.update(found)
        return states

    def gone(self, ids: Iterable[str]) -> set[str]:
        """Those of the sessions under whose keys there is nothing. An id that can have no session key is not in it."""
        gone: set[str] = set()
        for group in batches(self._names.session_keys(ids).items(), _GROUP):
            absent = self._absent([key for _, key in group])
            gone.update(session_id for session_id, key in group if key in absent)
        return gone

    def _absent(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of the keys that are not there, of whatever type."""
        groups = list(batches(keys, _COUNTED_TOGETHER))
        counts = self._server.existing(groups)
        doubtful = [key for group, count in zip(groups, counts, strict=True) if count < len(group) for key in group]
        states = self._server.evaluate(scripts.INSPECT, doubtful) if doubtful else []
        return {key for key, state in zip(doubtful, states, strict=True) if state == scripts.GONE}

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

    def all_contents(self, ids: Iterable[str]) -> dict[str, Content]:
        """As :meth:`contents`, but a session that is an empty string is there, and says nothing."""
        return self._reader.read_all(self._keys(ids))

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

    def lone_access_log_pages(self) -> Iterator[list[str]]:
        """The ids of sessions that have an access log, but no key, a page at a time; one may be found again later."""
        if self._names.access_log is None:
            return
        for keys in self._server.scan(self._names.access_log.pattern, _SCAN_COUNT):
            yield _decoded(self._without_key(self._names.access_log_owners(keys)))

    def lone_index_pages(self) -> Iterator[IndexPage]:
        """All entries of all user indexes whose session has no key, a page at a time; one may be found again later."""
        template = self._names.user_index
        if template is None:
            return
        for keys in self._server.scan(template.pattern, _SCAN_COUNT):
            for group in batches(dict.fromkeys(template.readable(keys)), _INDEXES_AT_ONCE):
                members, unread = self._read_indexes(dict.fromkeys(group, 0), _FIRST_MEMBERS)
                yield self._lone(members)
                for large in batches(unread.items(), _LARGE_INDEXES_AT_ONCE):
                    cursors = dict(large)
                    while cursors:
                        members, cursors = self._read_indexes(cursors, _MORE_MEMBERS)
                        yield self._lone(members)

    def _lone(self, members: Mapping[bytes, Sequence[bytes] | None]) -> IndexPage:
        """The entries whose session has no key, among the members of indexes."""
        everything = {member for found in members.values() for member in found or ()}
        # As they are written. Most are there, and there is nothing more to find out about them.
        lone = self._without_key(everything)
        entries = [
            entry
            for key, found in (members.items() if lone else ())
            for member in found or ()
            if member in lone and (entry := _entry(key, member)) is not None
        ]
        if otherwise := [entry.session_id for entry in entries if entry.member is not None]:
            gone = self.gone(otherwise)
            entries = [entry for entry in entries if entry.member is None or entry.session_id in gone]
        # An access log may be named like an index; that is nothing to tell about.
        odd = (key for key, found in members.items() if found is None)
        return IndexPage(entries, sum(not self._names.is_access_log(key) for key in odd))

    def _without_key(self, written: Iterable[bytes]) -> set[bytes]:
        """Those of the ids, as they are written, under whose session keys there is nothing."""
        lone: set[bytes] = set()
        for group in batches(written, _GROUP):
            keys = {key: i for i in group if (key := self._names.session_key_of(i)) is not None}
            lone.update(keys[key] for key in self._absent(list(keys)))
        return lone

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
            members, cursors = self._read_indexes(cursors, _MORE_MEMBERS)
            entries = (_entry(key, member) for found in members.values() for member in found or ())
            yield list(dict.fromkeys(entry.session_id for entry in entries if entry is not None))

    def _read_indexes(
        self, cursors: Mapping[bytes, int], count: int
    ) -> tuple[dict[bytes, Sequence[bytes] | None], dict[bytes, int]]:
        """Some members of each of these indexes, None where it is no set; and where those that have more go on."""
        replies = self._server.pipeline([("SSCAN", key, cursor, "COUNT", count) for key, cursor in cursors.items()])
        members = {key: reply and reply[1] for key, reply in zip(cursors, replies, strict=True)}
        unread = {key: int(reply[0]) for key, reply in zip(cursors, replies, strict=True) if reply and reply[0] != b"0"}
        return members, unread

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
            ids = [s.key for s in group]
            index_entries += self._remove_from_indexes(group)
            self._server.unlink(list(self._names.access_log_keys(ids).values()))
            # The session key goes last: while it is there, the next run finds what this one may not have finished.
            session_keys += self._server.unlink(list(self._names.session_keys(ids).values()))
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
        return self._remove_from_indexes([s for s in sessions if s.user_id is not None])

    def remove_access_logs(self, ids: Iterable[str]) -> int:
        """Removes the access logs of these sessions. Returns how many there were."""
        keys = self._names.access_log_keys(ids).values()
        return sum(self._server.unlink(group) for group in batches(keys, _GROUP))

    def remove_index_entries(self, entries: Iterable[IndexEntry]) -> int:
        """Removes these entries. Returns how many there were."""
        removed = 0
        for group in batches(entries, _GROUP):
            by_index: defaultdict[bytes, list[bytes]] = defaultdict(list)
            for entry in group:
                by_index[entry.key].append(entry.member or _encoded(entry.session_id))
            removed += self._remove_members(by_index)
        return removed

    def close(self) -> None:
        """Closes the connections."""
        self._server.close()

    # --- inside --------------------------------------------------------------------------------------------------

    def _keys(self, ids: Iterable[str]) -> dict[str, bytes]:
        return self._names.session_keys(ids)

    def _remove_from_indexes(self, sessions: Sequence[Session]) -> int:
        """Removes each session from the index of its user. Returns how many entries there were."""
        if self._names.user_index is None:
            return 0
        # Without a user column only the session itself tells whose it is.
        contents = self.contents(s.key for s in sessions if s.user_id is None)
        by_user: defaultdict[str, list[bytes]] = defaultdict(list)
        for session in sessions:
            user = session.user_id if session.user_id is not None else contents.get(session.key, UNKNOWN).user_id
            if user is not None:
                by_user[str(user)].append(_encoded(session.key))
        by_user.pop("", None)
        keys = self._names.user_index.keys(by_user)
        return self._remove_members(dict(zip(keys, by_user.values(), strict=True)))

    def _remove_members(self, by_index: Mapping[bytes, Sequence[bytes]]) -> int:
        replies = self._server.pipeline([("SREM", key, *members) for key, members in by_index.items()])
        return sum(reply or 0 for reply in replies)  # None: the key is not a set


def _encoded(session_id: str) -> bytes:
    return session_id.encode("utf-8", "surrogatepass")


def _decoded(ids: Iterable[bytes]) -> list[str]:
    """The ids as text; without those that are none."""
    found: list[str] = []
    for written in ids:
        with suppress(UnicodeDecodeError):
            found.append(written.decode())
    return found


def _entry(key: bytes, member: bytes) -> IndexEntry | None:
    """An entry of an index; None if it is no text."""
    try:
        return IndexEntry(key, member.decode())
    except UnicodeDecodeError:
        session_id = decode_text(member)
        return None if session_id is None else IndexEntry(key, session_id, member)
