"""Finds stale data of deleted sessions: user index entries and access logs whose session key does not exist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from stores.model.batches import batches
from stores.redis.connection.server import RedisServer
from stores.redis.content.java_serialization import JAVA_STRING, decode_string
from stores.redis.key_bloom_filter import KeyBloomFilter
from stores.redis.keys import KeyNames
from stores.redis.nonexistent_keys import nonexistent_keys

# Keys in one round trip.
_GROUP = 2000
# COUNT of SSCAN: few at first, because most users have few sessions; more for larger indexes.
_FIRST_MEMBERS = 100
_MORE_MEMBERS = 1000
_INDEXES_PER_ROUND_TRIP = 500
_LARGE_INDEXES_PER_ROUND_TRIP = 20

#: Members of user indexes by index key; None if the key is not a set.
Members = Mapping[bytes, Sequence[bytes] | None]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A session id in a user's index.

    Attributes:
        key: key of the index.
        session_id: the session.
        member: the raw entry, where it is not the plain id (a serialized Java string); else None.
    """

    key: bytes
    session_id: str
    member: bytes | None = None


class StaleEntryReader:
    """Reads user indexes, and finds entries and access logs of sessions without a key.

    Args:
        server: the Redis.
        names: key templates of the policy.
    """

    def __init__(self, server: RedisServer, names: KeyNames) -> None:
        self._server = server
        self._names = names

    def members(self, keys: Iterable[bytes]) -> Iterator[Members]:
        """All members of these indexes, page by page."""
        for group in batches(keys, _INDEXES_PER_ROUND_TRIP):
            members, unread = self._read(dict.fromkeys(group, 0), _FIRST_MEMBERS)
            yield members
            for large in batches(unread.items(), _LARGE_INDEXES_PER_ROUND_TRIP):
                cursors = dict(large)
                while cursors:
                    members, cursors = self._read(cursors, _MORE_MEMBERS)
                    yield members

    def session_ids_in(self, key: bytes) -> Iterator[list[str]]:
        """The session ids in one index, page by page."""
        cursors = {key: 0}
        while cursors:
            members, cursors = self._read(cursors, _MORE_MEMBERS)
            entries = (_entry(key, member) for found in members.values() for member in found or ())
            yield list(dict.fromkeys(entry.session_id for entry in entries if entry is not None))

    def entries_without_key(self, members: Members) -> list[IndexEntry]:
        """The entries whose session has no key; without entries that are neither UTF-8 nor a Java string."""
        raw_ids = {member for found in members.values() for member in found or ()}
        # Checked undecoded: most sessions exist, and then nothing else has to be known of their entries.
        keyless = self._without_key(raw_ids)
        entries = [
            entry
            for key, found in (members.items() if keyless else ())
            for member in found or ()
            if member in keyless and (entry := _entry(key, member)) is not None
        ]
        if java_ids := [entry.session_id for entry in entries if entry.member is not None]:
            existing = set(java_ids) - _decoded(self._without_key(i.encode() for i in java_ids))
            entries = [entry for entry in entries if entry.member is None or entry.session_id not in existing]
        return entries

    def entries_of(self, members: Members, deleted_ids: KeyBloomFilter) -> Members:
        """Those of the members that may be entries of these sessions, with a few false positives."""
        found: dict[bytes, list[bytes]] = {}
        for key, entries in members.items():
            # A serialized Java string is not the id's own bytes: it is always included.
            if chosen := deleted_ids.matching(entries or ()) + [m for m in entries or () if m.startswith(JAVA_STRING)]:
                found[key] = chosen
        return found

    def count_wrong_type(self, members: Members) -> int:
        """How many of the index keys are not sets; access logs whose key matches the index template do not count."""
        return sum(found is None and not self._names.is_access_log(key) for key, found in members.items())

    def access_logs_without_key(self, raw_ids: Iterable[bytes]) -> set[str]:
        """Those of the session ids in access log keys that have no session key; without ids that are not UTF-8."""
        return _decoded(self._without_key(raw_ids))

    def _without_key(self, raw_ids: Iterable[bytes]) -> set[bytes]:
        """Those of the raw session ids whose session key does not exist."""
        keyless: set[bytes] = set()
        for group in batches(raw_ids, _GROUP):
            keys = self._names.session_keys_of(group)
            keyless.update(keys[key] for key in nonexistent_keys(self._server, list(keys)))
        return keyless

    def _read(self, cursors: Mapping[bytes, int], count: int) -> tuple[Members, dict[bytes, int]]:
        """One page of members of each index, and the cursors of the indexes that have more."""
        replies = self._server.pipeline([("SSCAN", key, cursor, "COUNT", count) for key, cursor in cursors.items()])
        members = {key: reply and reply[1] for key, reply in zip(cursors, replies, strict=True)}
        unread = {key: int(reply[0]) for key, reply in zip(cursors, replies, strict=True) if reply and reply[0] != b"0"}
        return members, unread


def _decoded(raw_ids: Iterable[bytes]) -> set[str]:
    found: set[str] = set()
    for raw_id in raw_ids:
        with suppress(UnicodeDecodeError):
            found.add(raw_id.decode())
    return found


def _entry(key: bytes, member: bytes) -> IndexEntry | None:
    """An index member as an entry; None if it is neither UTF-8 nor a Java string."""
    try:
        return IndexEntry(key, member.decode())
    except UnicodeDecodeError:
        session_id = decode_string(member)
        return None if session_id is None else IndexEntry(key, session_id, member)
