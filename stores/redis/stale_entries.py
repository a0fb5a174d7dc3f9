"""What is left in Redis of sessions that are gone: entries of user indexes, and access logs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from stores.model.batches import batches
from stores.redis.connection.server import RedisServer
from stores.redis.content.java_serialization import JAVA_TEXT, decode_text
from stores.redis.key_bloom_filter import KeyBloomFilter
from stores.redis.keys import KeyNames
from stores.redis.nonexistent_keys import nonexistent_keys

# Keys in one round trip.
_GROUP = 2000
# Members of one index in one answer: few at first, for most users have few; more where there is more.
_FIRST_MEMBERS = 100
_MORE_MEMBERS = 1000
_INDEXES_AT_ONCE = 500
_LARGE_INDEXES_AT_ONCE = 20

#: Members of user indexes by the key of the index; None where it is no set.
Members = Mapping[bytes, Sequence[bytes] | None]


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


class StaleEntryReader:
    """Reads user indexes, and tells which entries and access logs belong to sessions without a key.

    Args:
        server: where they are.
        names: how keys are named.
    """

    def __init__(self, server: RedisServer, names: KeyNames) -> None:
        self._server = server
        self._names = names

    def members(self, keys: Iterable[bytes]) -> Iterator[Members]:
        """All members of these indexes, some at a time."""
        for group in batches(keys, _INDEXES_AT_ONCE):
            members, unread = self._read(dict.fromkeys(group, 0), _FIRST_MEMBERS)
            yield members
            for large in batches(unread.items(), _LARGE_INDEXES_AT_ONCE):
                cursors = dict(large)
                while cursors:
                    members, cursors = self._read(cursors, _MORE_MEMBERS)
                    yield members

    def sessions_in(self, key: bytes) -> Iterator[list[str]]:
        """The ids in one index, some at a time."""
        cursors = {key: 0}
        while cursors:
            members, cursors = self._read(cursors, _MORE_MEMBERS)
            entries = (_entry(key, member) for found in members.values() for member in found or ())
            yield list(dict.fromkeys(entry.session_id for entry in entries if entry is not None))

    def lone_entries(self, members: Members) -> list[IndexEntry]:
        """The entries whose session has no key; those that are neither UTF-8 nor a Java string are left out."""
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
            known = set(otherwise) - _decoded(self._without_key(i.encode() for i in otherwise))
            entries = [entry for entry in entries if entry.member is None or entry.session_id not in known]
        return entries

    def of_sessions(self, members: Members, some: KeyBloomFilter) -> Members:
        """Those of the members that may be entries of some sessions, and few others."""
        found: dict[bytes, list[bytes]] = {}
        for key, written in members.items():
            # What a Java application has written is no id as it is: it is looked at in any case.
            if chosen := some.among(written or ()) + [m for m in written or () if m.startswith(JAVA_TEXT)]:
                found[key] = chosen
        return found

    def wrong_type(self, members: Members) -> int:
        """How many of the indexes are no sets; an access log may be named like an index, and is not counted."""
        return sum(found is None and not self._names.is_access_log(key) for key, found in members.items())

    def lone_logs(self, owners: Iterable[bytes]) -> set[str]:
        """Those of the sessions, as their access logs' keys spell them, that have no key; without what is no text."""
        return _decoded(self._without_key(owners))

    def _without_key(self, written: Iterable[bytes]) -> set[bytes]:
        """Those of the ids, as they are written, under whose session keys there is nothing."""
        lone: set[bytes] = set()
        for group in batches(written, _GROUP):
            keys = self._names.session_keys_of(group)
            lone.update(keys[key] for key in nonexistent_keys(self._server, list(keys)))
        return lone

    def _read(self, cursors: Mapping[bytes, int], count: int) -> tuple[Members, dict[bytes, int]]:
        """Some members of each of these indexes, and where those that have more go on."""
        replies = self._server.pipeline([("SSCAN", key, cursor, "COUNT", count) for key, cursor in cursors.items()])
        members = {key: reply and reply[1] for key, reply in zip(cursors, replies, strict=True)}
        unread = {key: int(reply[0]) for key, reply in zip(cursors, replies, strict=True) if reply and reply[0] != b"0"}
        return members, unread


def _decoded(ids: Iterable[bytes]) -> set[str]:
    found: set[str] = set()
    for written in ids:
        with suppress(UnicodeDecodeError):
            found.add(written.decode())
    return found


def _entry(key: bytes, member: bytes) -> IndexEntry | None:
    """An entry of an index; None if it is no text."""
    try:
        return IndexEntry(key, member.decode())
    except UnicodeDecodeError:
        session_id = decode_text(member)
        return None if session_id is None else IndexEntry(key, session_id, member)
