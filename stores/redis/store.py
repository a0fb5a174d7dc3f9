"""Reads and deletes sessions in Redis: many per round trip, without commands that block other clients."""

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

# COUNT of SCAN.
_SCAN_COUNT = 1000
# Pages of SCAN whose keys are looked up together, to save round trips.
_PAGES_TOGETHER = 4
# Keys in one round trip.
_GROUP = 1000
# Sessions per page of key states.
_PAGE = 1000
# Read by one script call.
_MAX_BYTES_PER_CALL = 4 * 2**20


@dataclass(frozen=True, slots=True)
class KeyPage:
    """A page of a scan; a key may be on several pages.

    Attributes:
        session_keys: keys that are session keys by name.
        access_log_ids: raw session ids in the keys of access logs.
        members: members of user indexes.
    """

    session_keys: Sequence[bytes] = ()
    access_log_ids: Sequence[bytes] = ()
    members: Members = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeyStates:
    """Existence, type and TTL of session keys, by session id.

    Attributes:
        sessions: ids whose key is a string or a hash.
        without_ttl: those of the sessions whose key has no TTL.
        missing: ids whose key does not exist.
        ttls: TTLs of the sessions in milliseconds; scripts.NO_TTL for none.
    """

    sessions: set[str] = field(default_factory=set)
    without_ttl: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    ttls: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeyPresence:
    """Which sessions have a key.

    Attributes:
        keys: the keys that exist, of any type.
        missing: ids of sessions without a key.
        without_ttl: ids of sessions whose key has no TTL.
    """

    keys: list[bytes] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    without_ttl: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class RemovalCounts:
    """How much was deleted; too low if a command was repeated after its reply was lost.

    Attributes:
        session_keys: session keys.
        index_entries: user index entries.
    """

    session_keys: int = 0
    index_entries: int = 0


@dataclass(frozen=True, slots=True)
class ConditionalDeletion:
    """Result of deleting sessions unless they have changed.

    Attributes:
        deleted: ids of the deleted sessions.
        missing: ids of sessions that did not exist any more.
    """

    deleted: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


class RedisStore:
    """The session keys, access logs and user indexes of a policy.

    All methods raise RedisUnavailableError if Redis cannot be reached or keeps failing, and ConfigurationError if it
    refuses the login or a command. After an error, calling again continues: what was done stays done.

    Args:
        connection: from :func:`stores.redis.connection.connect.connect`.
        store: stores.redis of the policy: key templates and fields.
        retry: number of retries and the pause between them.
        clock: ends retries at the deadline.
        log: gets a warning per retry.

    Raises:
        ConfigurationError: the key templates are ambiguous.
    """

    def __init__(
        self, connection: RedisConnection, store: stores.RedisStore, retry: Retry, clock: RunClock, log: Any
    ) -> None:
        self._names = KeyNames.parse(store.keys)
        self._server = RedisServer(connection, retry, clock, log)
        self._reader = ContentReader(self._server, store.fields)
        self.stale_entries = StaleEntryReader(self._server, self._names)
        """Finds index entries and access logs of sessions that no longer exist."""

    @property
    def server(self) -> RedisServer:
        """The Redis, for further commands."""
        return self._server

    @property
    def names(self) -> KeyNames:
        """The key templates."""
        return self._names

    # --- reading -------------------------------------------------------------------------------------------------

    def server_time(self) -> datetime:
        """The clock of Redis; in a cluster the slowest one, so that no session is taken for older than it is."""
        return min(self.server_times())

    def server_times(self) -> list[datetime]:
        """The clock of each server that holds keys."""
        return self._server.times()

    def session_pages(self) -> Iterator[list[str]]:
        """The ids of all session keys, page by page.

        A key that exists throughout is found; it may be found twice if Redis resizes its hash table. During a failover,
        or while slots move, keys may be missed or found twice.
        """
        for keys in self._server.scan(self._names.session.pattern, _SCAN_COUNT):
            yield list(dict.fromkeys(self._names.session_ids(keys)))

    def key_pages(self) -> Iterator[KeyPage]:
        """All session keys, access logs, and user indexes with members, in one SCAN; see :meth:`session_pages`."""
        names = self._names
        templates = [t for t in (names.session, names.user_index, names.access_log) if t is not None]
        for keys in _merged(self._server.scan(pattern_for(templates), _SCAN_COUNT)):
            yield KeyPage(names.session_keys_in(keys), names.access_log_session_ids(keys))
            yield from self._index_pages(keys)

    def index_and_access_log_pages(self) -> Iterator[KeyPage]:
        """As :meth:`key_pages`, without the session keys."""
        names = self._names
        templates = [t for t in (names.user_index, names.access_log) if t is not None]
        for keys in _merged(self._server.scan(pattern_for(templates), _SCAN_COUNT)) if templates else ():
            yield KeyPage(access_log_ids=names.access_log_session_ids(keys))
            yield from self._index_pages(keys)

    def index_pages(self) -> Iterator[KeyPage]:
        """As :meth:`index_and_access_log_pages`, without the access logs."""
        if self._names.user_index is not None:
            for keys in _merged(self._server.scan(self._names.user_index.pattern, _SCAN_COUNT)):
                yield from self._index_pages(keys)

    def _index_pages(self, keys: Sequence[bytes]) -> Iterator[KeyPage]:
        if self._names.user_index is not None:
            for members in self.stale_entries.members(dict.fromkeys(self._names.user_index.readable(keys))):
                yield KeyPage(members=members)

    def key_state_pages(self) -> Iterator[KeyStates]:
        """The states of all session keys; see :meth:`session_pages`."""
        ids: list[str] = []
        for page in self.session_pages():
            ids += page
            # If most keys are other applications', a page of SCAN has few sessions: collect them to save round trips.
            if len(ids) >= _PAGE:
                yield self.key_states(ids)
                ids = []
        if ids:
            yield self.key_states(ids)

    def possibly_different_pages(self, checksums: KeyChecksums) -> Iterator[tuple[int, KeyStates]]:
        """The number of session keys that are the same in both scans, and the states of those that may differ."""
        same = 0
        ids: list[str] = []
        for found in self._server.scan(self._names.session.pattern, _SCAN_COUNT):
            keys = list(dict.fromkeys(self._names.session_keys_in(found)))
            different = checksums.possibly_different(keys)
            same += len(keys) - len(different)
            ids += self._names.session_ids(different)
            if len(ids) >= _PAGE:
                yield same, self.key_states(ids)
                same, ids = 0, []
        yield same, self.key_states(ids)

    def key_presence(self, ids: Iterable[str]) -> KeyPresence:
        """Whether these sessions have a key, of any type, and whether it has a TTL."""
        presence = KeyPresence()
        keys = self._keys(ids)
        for group in batches(keys, _GROUP):
            existing = [keys[i] for i in group]
            ttls = self._server.evaluate(scripts.TTLS, existing)
            if min(ttls) < 0:
                existing = [key for key, ttl in zip(existing, ttls, strict=True) if ttl != scripts.NO_KEY]
                presence.missing.update(i for i, ttl in zip(group, ttls, strict=True) if ttl == scripts.NO_KEY)
                presence.without_ttl.update(i for i, ttl in zip(group, ttls, strict=True) if ttl == scripts.NO_TTL)
            presence.keys.extend(existing)
        return presence

    def key_states(self, ids: Iterable[str]) -> KeyStates:
        """Existence, type and TTL of these sessions' keys; without ids that cannot have a session key."""
        states = KeyStates()
        for group in batches(self._names.session_keys(ids).items(), _GROUP):
            names = [session_id for session_id, _ in group]
            found = dict(zip(names, self._server.evaluate(scripts.KEY_STATES, [key for _, key in group]), strict=True))
            negative = {session_id: state for session_id, state in found.items() if state < 0}
            for session_id, state in negative.items():
                if state == scripts.NO_TTL:
                    states.without_ttl.add(session_id)
                    continue
                del found[session_id]
                if state == scripts.NO_KEY:
                    states.missing.add(session_id)
            states.sessions.update(found)
            states.ttls.update(found)
        return states

    def missing(self, ids: Iterable[str]) -> set[str]:
        """Those of the sessions whose key does not exist. Ids that cannot have a session key are not returned."""
        missing: set[str] = set()
        for group in batches(self._names.session_keys(ids).items(), _GROUP):
            absent = nonexistent_keys(self._server, [key for _, key in group])
            missing.update(session_id for session_id, key in group if key in absent)
        return missing

    def idle_at_least(self, ids: Iterable[str], seconds: int) -> set[str]:
        """Those of the sessions whose keys were certainly not read or written for so many seconds."""
        idle: set[str] = set()
        keys = self._keys(ids)
        for group in batches(keys, _GROUP):
            for session_id, found in zip(
                group, self._server.evaluate(scripts.IDLE_TIMES, [keys[i] for i in group]), strict=True
            ):
                # Redis counts whole seconds: only one more is certain.
                if found > seconds:
                    idle.add(session_id)
        return idle

    def contents(self, ids: Iterable[str]) -> dict[str, Content]:
        """Content by session id; without keys that do not exist, are empty strings or have another type."""
        return self._reader.read(self._keys(ids))

    def contents_with_empty(self, ids: Iterable[str]) -> dict[str, Content]:
        """As :meth:`contents`, but empty strings are included, as sessions of which nothing is known."""
        return self._reader.read_with_empty(self._keys(ids))

    def contents_with_digests(self, ids: Iterable[str]) -> dict[str, ContentWithDigest]:
        """As :meth:`contents_with_empty`, with the digests that :meth:`delete_if_unchanged` needs."""
        return self._reader.read_with_digests(self._keys(ids))

    def last_accesses(self, keys: Sequence[str]) -> Mapping[str, datetime]:
        """When these sessions were last used, by their content; without sessions whose content does not say so."""
        return {
            session_id: content.last_accessed_at
            for session_id, content in self.contents(keys).items()
            if content.last_accessed_at is not None
        }

    def indexes_larger_than(self, limit: int) -> Iterator[tuple[str, Iterator[list[str]]]]:
        """The users whose index has more than ``limit`` entries, each with pages of their session ids."""
        template = self._names.user_index
        if template is None:
            return
        for keys in self._server.scan(template.pattern, _SCAN_COUNT):
            users = {key: user for key in keys if (user := template.name(key)) is not None}
            for group in batches(users, _GROUP):
                sizes = self._server.pipeline([("SCARD", key) for key in group])
                for key, size in zip(group, sizes, strict=True):
                    if (size or 0) > limit:  # None: the key is not a set
                        yield users[key], self.stale_entries.session_ids_in(key)

    # --- changing ------------------------------------------------------------------------------------------------

    def add_ttls(self, seconds: Mapping[str, float]) -> int:
        """Sets the TTL of each of these sessions, unless it has one. Returns how many were set."""
        keys = self._keys(seconds)
        added = 0
        for group in batches(keys, _GROUP):
            milliseconds = [int(seconds[i] * 1000) for i in group]
            added += sum(self._server.evaluate(scripts.ADD_TTL, [keys[i] for i in group], milliseconds))
        return added

    def delete(self, sessions: Sequence[Session]) -> RemovalCounts:
        """Deletes session keys, access logs and index entries of sessions whose rows are deleted."""
        session_keys = index_entries = 0
        for group in batches(sessions, _GROUP):
            ids = [s.key for s in group]
            index_entries += self._remove_from_indexes(group)
            self._server.unlink(list(self._names.access_log_keys(ids).values()))
            # The session key last: while it exists, the next run finds what this one did not finish.
            session_keys += self._server.unlink(list(self._names.session_keys(ids).values()))
        return RemovalCounts(session_keys, index_entries)

    def delete_if_unchanged(
        self, contents: Mapping[str, ContentWithDigest], ttls: Mapping[str, int]
    ) -> ConditionalDeletion:
        """Deletes the keys of those sessions that have not changed since they were read; check and deletion are atomic.

        Args:
            contents: from :meth:`contents_with_digests`.
            ttls: from :meth:`key_states`; a session whose TTL is longer now is in use.
        """
        outcome = ConditionalDeletion()
        fields = self._reader.hash_fields
        keys = self._keys(i for i, content in contents.items() if content.digest)
        for batch in batches(keys, _GROUP):
            for group in batches_by_weight(batch, lambda i: contents[i].size, _MAX_BYTES_PER_CALL):
                arguments: list[Argument] = []
                for i in group:
                    arguments += [contents[i].digest, ttls[i], *fields]
                found = self._server.evaluate(scripts.DELETE_IF_UNCHANGED, [keys[i] for i in group], arguments)
                outcome.deleted.extend(i for i, state in zip(group, found, strict=True) if state == 1)
                outcome.missing.extend(i for i, state in zip(group, found, strict=True) if state == scripts.NO_KEY)
        return outcome

    def remove_access_logs_and_index_entries(self, sessions: Sequence[Session]) -> None:
        """Removes access logs and index entries of sessions whose keys are deleted."""
        self.remove_access_logs(session.key for session in sessions)
        self._remove_from_indexes([s for s in sessions if s.user_id is not None])

    def remove_access_logs(self, ids: Iterable[str]) -> int:
        """Removes the access logs of these sessions. Returns how many existed."""
        keys = self._names.access_log_keys(ids).values()
        return sum(self._server.unlink(group) for group in batches(keys, _GROUP))

    def remove_index_entries(self, entries: Iterable[IndexEntry]) -> int:
        """Removes these index entries. Returns how many existed."""
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
        """Removes each session from its user's index. Returns how many entries existed."""
        if self._names.user_index is None:
            return 0
        # Without a user column, only the session's content names its user.
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


def _merged(pages: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
    """Several pages of SCAN as one."""
    while some := list(islice(pages, _PAGES_TOGETHER)):
        yield [key for keys in some for key in keys]
