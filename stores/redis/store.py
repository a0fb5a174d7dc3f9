"""The sessions in Redis: many per command, and no command that keeps other clients waiting."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from policy import stores
from policy.spec import Retry
from stores.model.batches import batches, batches_by_weight
from stores.model.sessions import Session
from stores.redis.connection import scripts
from stores.redis.connection.interface import Argument, RedisConnection
from stores.redis.connection.server import RedisServer
from stores.redis.content.content_reader import ContentReader, ContentWithDigest
from stores.redis.content.session_content import UNKNOWN, Content
from stores.redis.key_checksums import KeyChecksums
from stores.redis.keys import KeyNames, encoded, pattern_for
from stores.redis.nonexistent_keys import nonexistent_keys
from stores.redis.stale_entries import IndexEntry, Members, StaleEntryReader
from stores.waiting.clock import RunClock

# What SCAN looks at in one call.
_SCAN_COUNT = 1000
# What is looked up for the keys of several steps of SCAN takes fewer round trips than for those of one.
_STEPS_TOGETHER = 4
# Keys in one round trip.
_GROUP = 1000
# Sessions in one answer to whoever reads all of them.
_PAGE = 1000
# Read by one script.
_BYTES_AT_ONCE = 4 * 2**20


@dataclass(frozen=True, slots=True)
class KeyPage:
    """Some keys, as they are written; a key may be met again on a later page.

    Attributes:
        session_keys: those that are named like a session's.
        log_owners: whose access logs there are, as the keys spell them.
        members: of user indexes.
    """

    session_keys: Sequence[bytes] = ()
    log_owners: Sequence[bytes] = ()
    members: Members = field(default_factory=dict)


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
class KeyPresence:
    """Which of some sessions have a key.

    Attributes:
        keys: the keys that are there, of whatever type.
        gone: the sessions without one, by id.
        without_ttl: those of the others whose key would stay for ever.
    """

    keys: list[bytes] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    without_ttl: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class RemovalCounts:
    """What was removed; less than there was if a command had to be repeated.

    Attributes:
        session_keys: session keys.
        index_entries: entries of user indexes.
    """

    session_keys: int = 0
    index_entries: int = 0


@dataclass(frozen=True, slots=True)
class ConditionalDeletion:
    """What became of sessions that were to go if they had not changed.

    Attributes:
        deleted: those that are gone now.
        gone: those that were not there any more.
    """

    deleted: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


class RedisStore:
    """Implements :class:`stores.model.sessions.RedisSessions`, and what the synchronisation needs besides.

    All methods raise RedisUnavailableError if Redis cannot be reached or keeps failing, and ConfigurationError if it
    refuses the login or a command. Each may be called again after that: what was done stays done.

    Args:
        link: from :func:`stores.redis.connection.connect.connect`.
        store: how keys are named and content is read.
        retry: how often and after which pause a command is tried again.
        clock: of the run.
        log: of the run.

    Raises:
        ConfigurationError: the key templates cannot be told apart.
    """

    def __init__(
        self, link: RedisConnection, store: stores.RedisStore, retry: Retry, clock: RunClock, log: Any
    ) -> None:
        self._names = KeyNames.parse(store.keys)
        self._server = RedisServer(link, retry, clock, log)
        self._reader = ContentReader(self._server, store.fields)
        self.residue = StaleEntryReader(self._server, self._names)
        """Index entries and access logs."""

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

    def key_pages(self) -> Iterator[KeyPage]:
        """All session keys, access logs, and indexes with their members, in one walk; see :meth:`session_pages`."""
        names = self._names
        templates = [t for t in (names.session, names.user_index, names.access_log) if t is not None]
        for keys in _joined(self._server.scan(pattern_for(templates), _SCAN_COUNT)):
            yield KeyPage(names.session_keys_in(keys), names.access_log_owners(keys))
            yield from self._index_pages(keys)

    def residue_pages(self) -> Iterator[KeyPage]:
        """As :meth:`key_pages`, without the session keys."""
        names = self._names
        templates = [t for t in (names.user_index, names.access_log) if t is not None]
        for keys in _joined(self._server.scan(pattern_for(templates), _SCAN_COUNT)) if templates else ():
            yield KeyPage(log_owners=names.access_log_owners(keys))
            yield from self._index_pages(keys)

    def index_pages(self) -> Iterator[KeyPage]:
        """As :meth:`residue_pages`, without the access logs."""
        if self._names.user_index is not None:
            for keys in _joined(self._server.scan(self._names.user_index.pattern, _SCAN_COUNT)):
                yield from self._index_pages(keys)

    def _index_pages(self, keys: Sequence[bytes]) -> Iterator[KeyPage]:
        if self._names.user_index is not None:
            for members in self.residue.members(dict.fromkeys(self._names.user_index.readable(keys))):
                yield KeyPage(members=members)

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

    def doubtful_pages(self, sums: KeyChecksums) -> Iterator[tuple[int, KeyStates]]:
        """What there is under the session keys that are doubtful, and how many there were besides."""
        besides = 0
        ids: list[str] = []
        for found in self._server.scan(self._names.session.pattern, _SCAN_COUNT):
            keys = list(dict.fromkeys(self._names.session_keys_in(found)))
            doubtful = sums.doubtful(keys)
            besides += len(keys) - len(doubtful)
            ids += self._names.session_ids(doubtful)
            if len(ids) >= _PAGE:
                yield besides, self.inspect(ids)
                besides, ids = 0, []
        yield besides, self.inspect(ids)

    def standing(self, ids: Iterable[str]) -> KeyPresence:
        """Whether there is anything under the keys of these sessions, and whether it stays for ever."""
        standing = KeyPresence()
        keys = self._keys(ids)
        for group in batches(keys, _GROUP):
            named = [keys[i] for i in group]
            ttls = self._server.evaluate(scripts.TTLS, named)
            if min(ttls) < 0:
                named = [key for key, ttl in zip(named, ttls, strict=True) if ttl != scripts.GONE]
                standing.gone.update(i for i, ttl in zip(group, ttls, strict=True) if ttl == scripts.GONE)
                standing.without_ttl.update(i for i, ttl in zip(group, ttls, strict=True) if ttl == scripts.NO_TTL)
            standing.keys.extend(named)
        return standing

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
            missing = nonexistent_keys(self._server, [key for _, key in group])
            gone.update(session_id for session_id, key in group if key in missing)
        return gone

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

    def marked(self, ids: Iterable[str]) -> dict[str, ContentWithDigest]:
        """The content of these sessions, so that :meth:`delete_unchanged` knows it again."""
        return self._reader.read_marked(self._keys(ids))

    def last_accesses(self, keys: Sequence[str]) -> Mapping[str, datetime]:
        """When Redis says that these sessions were last used; sessions it knows nothing about are left out."""
        return {
            session_id: content.last_accessed_at
            for session_id, content in self.contents(keys).items()
            if content.last_accessed_at is not None
        }

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
                        yield users[key], self.residue.sessions_in(key)

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

    def remove(self, sessions: Sequence[Session]) -> RemovalCounts:
        """As :meth:`delete`, and tells of the index entries, too."""
        session_keys = index_entries = 0
        for group in batches(sessions, _GROUP):
            ids = [s.key for s in group]
            index_entries += self._remove_from_indexes(group)
            self._server.unlink(list(self._names.access_log_keys(ids).values()))
            # The session key goes last: while it is there, the next run finds what this one may not have finished.
            session_keys += self._server.unlink(list(self._names.session_keys(ids).values()))
        return RemovalCounts(session_keys, index_entries)

    def delete_unchanged(self, marked: Mapping[str, ContentWithDigest], ttls: Mapping[str, int]) -> ConditionalDeletion:
        """Deletes the keys of those sessions that are what they were when they were read, at the moment they go.

        Args:
            marked: their content, from :meth:`marked`.
            ttls: their TTLs, from :meth:`inspect`; a session whose TTL was prolonged since is in use.
        """
        outcome = ConditionalDeletion()
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
                by_index[entry.key].append(entry.member or encoded(entry.session_id))
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
                by_user[str(user)].append(encoded(session.key))
        by_user.pop("", None)
        keys = self._names.user_index.keys(by_user)
        return self._remove_members(dict(zip(keys, by_user.values(), strict=True)))

    def _remove_members(self, by_index: Mapping[bytes, Sequence[bytes]]) -> int:
        replies = self._server.pipeline([("SREM", key, *members) for key, members in by_index.items()])
        return sum(reply or 0 for reply in replies)  # None: the key is not a set


def _joined(steps: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
    """The keys of several steps of SCAN at a time."""
    while some := list(islice(steps, _STEPS_TOGETHER)):
        yield [key for keys in some for key in keys]
