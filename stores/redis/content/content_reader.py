"""Reads the content of many sessions with bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from policy.mapping import RedisFields
from stores.model.batches import batches, batches_by_weight
from stores.redis.connection import scripts
from stores.redis.connection.server import RedisServer
from stores.redis.content.session_content import UNKNOWN, Content, from_hash, from_json, hash_fields

_GROUP = 1000
_MAX_BYTES_PER_REPLY = 4 * 2**20
# A larger session is not read: decoded, it might not fit into the container's memory.
_MAX_BYTES = 16 * 2**20

_RawContent = bytes | Sequence[bytes | None] | None
"""A string, the values of hash fields, or None for a string that is too large to read."""


@dataclass(frozen=True, slots=True)
class ContentWithDigest:
    """A session's content with a digest that shows later whether it has changed.

    Attributes:
        content: the parsed content.
        digest: as the script DELETE_IF_UNCHANGED computes it; empty if the session was too large to read.
        size: bytes that the script reads to compute the digest.
    """

    content: Content
    digest: str
    size: int


class _StringKey(NamedTuple):
    session_id: str
    key: bytes
    length: int


class ContentReader:
    """Reads sessions stored as JSON strings or hashes.

    Args:
        server: the Redis.
        fields: stores.redis.fields of the policy.
    """

    def __init__(self, server: RedisServer, fields: RedisFields) -> None:
        self._server = server
        self._fields = fields

    @property
    def hash_fields(self) -> list[str]:
        """The hash fields that are read, and that a digest covers."""
        return hash_fields(self._fields)

    def read(self, keys: Mapping[str, bytes]) -> dict[str, Content]:
        """Content by session id; without keys that do not exist, are empty strings or have another type."""
        found: dict[str, Content] = {}
        for session_id, raw in self._read_raw(keys):
            if raw != b"":
                found[session_id] = self._parse(raw)
        return found

    def read_with_empty(self, keys: Mapping[str, bytes]) -> dict[str, Content]:
        """As :meth:`read`, but empty strings are included, as sessions of which nothing is known."""
        return {session_id: self._parse(raw) for session_id, raw in self._read_raw(keys)}

    def read_with_digests(self, keys: Mapping[str, bytes]) -> dict[str, ContentWithDigest]:
        """As :meth:`read_with_empty`, with digests."""
        found: dict[str, ContentWithDigest] = {}
        for session_id, raw in self._read_raw(keys):
            size = 0 if raw is None else len(raw) if isinstance(raw, bytes) else sum(len(v or b"") for v in raw)
            found[session_id] = ContentWithDigest(self._parse(raw), _digest(raw), size)
        return found

    def _parse(self, raw: _RawContent) -> Content:
        if raw is None:
            return UNKNOWN
        return from_json(raw, self._fields) if isinstance(raw, bytes) else from_hash(raw, self._fields)

    def _read_raw(self, keys: Mapping[str, bytes]) -> Iterator[tuple[str, _RawContent]]:
        for group in batches(keys.items(), _GROUP):
            lengths = self._server.evaluate(scripts.STRING_LENGTHS, [key for _, key in group])
            strings: list[_StringKey] = []
            hashes: dict[str, bytes] = {}
            for (session_id, key), length in zip(group, lengths, strict=True):
                if length == scripts.NO_KEY:
                    continue
                if length == scripts.NOT_A_STRING:
                    hashes[session_id] = key
                elif length > _MAX_BYTES:
                    yield session_id, None
                else:
                    strings.append(_StringKey(session_id, key, length))
            yield from self._read_hashes(hashes)
            yield from self._read_strings(strings)

    def _read_hashes(self, keys: Mapping[str, bytes]) -> Iterator[tuple[str, _RawContent]]:
        replies = self._server.pipeline([("HMGET", key, *self.hash_fields) for key in keys.values()])
        for session_id, values in zip(keys, replies, strict=True):
            if values is not None:
                yield session_id, values

    def _read_strings(self, strings: list[_StringKey]) -> Iterator[tuple[str, _RawContent]]:
        for group in batches_by_weight(strings, lambda s: s.length, _MAX_BYTES_PER_REPLY):
            replies = self._server.evaluate(scripts.STRINGS, [s.key for s in group])
            for string, value in zip(group, replies, strict=True):
                if value is not None:
                    yield string.session_id, value


def _digest(raw: _RawContent) -> str:
    if raw is None:
        return ""
    if isinstance(raw, bytes):
        return "s" + _sha1(raw)
    return "h" + _sha1(b"".join(b"-" if value is None else b"%d:%b" % (len(value), value) for value in raw))


def _sha1(value: bytes) -> str:
    return hashlib.sha1(value, usedforsecurity=False).hexdigest()
