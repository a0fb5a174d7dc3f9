"""Reading the content of many sessions, with little of it in memory at one time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from policy.stores import RedisFields
from stores.model.batches import batches, batches_by_weight
from stores.redis.connection import scripts
from stores.redis.connection.server import RedisServer
from stores.redis.content.session_content import UNKNOWN, Content, from_hash, from_json, hash_fields

_GROUP = 1000
_BYTES_AT_ONCE = 4 * 2**20
# A session larger than this is not read: decoded, it might not fit the container's memory.
_MAX_BYTES = 16 * 2**20

_RawContent = bytes | Sequence[bytes | None] | None
"""A string, the fields of a hash, or None for what is too large to be read."""


@dataclass(frozen=True, slots=True)
class ContentWithDigest:
    """The content of a session, and what tells whether it is still the same.

    Attributes:
        content: what it says.
        mark: a digest of it, as the script DELETE_UNCHANGED makes it; empty where it was too large to be read.
        size: in bytes, of what is read again to make the mark.
    """

    content: Content
    mark: str
    size: int


class _StringKey(NamedTuple):
    session_id: str
    key: bytes
    length: int


class ContentReader:
    """Reads sessions that are strings holding JSON, or hashes.

    Args:
        server: where they are.
        fields: how they are read.
    """

    def __init__(self, server: RedisServer, fields: RedisFields) -> None:
        self._server = server
        self._fields = fields

    @property
    def hash_fields(self) -> list[str]:
        """The fields of a hash that its mark is made of."""
        return hash_fields(self._fields)

    def read(self, keys: Mapping[str, bytes]) -> dict[str, Content]:
        """The content under these keys, by session id. Sessions that are not there, or are neither, are left out."""
        found: dict[str, Content] = {}
        for session_id, raw in self._raw(keys):
            if raw != b"":
                found[session_id] = self._content(raw)
        return found

    def read_all(self, keys: Mapping[str, bytes]) -> dict[str, Content]:
        """As :meth:`read`, but a session that is an empty string says nothing, and is there."""
        return {session_id: self._content(raw) for session_id, raw in self._raw(keys)}

    def read_marked(self, keys: Mapping[str, bytes]) -> dict[str, ContentWithDigest]:
        """As :meth:`read_all`, with marks."""
        found: dict[str, ContentWithDigest] = {}
        for session_id, raw in self._raw(keys):
            size = 0 if raw is None else len(raw) if isinstance(raw, bytes) else sum(len(v or b"") for v in raw)
            found[session_id] = ContentWithDigest(self._content(raw), _mark(raw), size)
        return found

    def _content(self, raw: _RawContent) -> Content:
        if raw is None:
            return UNKNOWN
        return from_json(raw, self._fields) if isinstance(raw, bytes) else from_hash(raw, self._fields)

    def _raw(self, keys: Mapping[str, bytes]) -> Iterator[tuple[str, _RawContent]]:
        for group in batches(keys.items(), _GROUP):
            lengths = self._server.evaluate(scripts.LENGTHS, [key for _, key in group])
            documents: list[_StringKey] = []
            hashes: dict[str, bytes] = {}
            for (session_id, key), length in zip(group, lengths, strict=True):
                if length == scripts.GONE:
                    continue
                if length == scripts.NO_STRING:
                    hashes[session_id] = key
                elif length > _MAX_BYTES:
                    yield session_id, None
                else:
                    documents.append(_StringKey(session_id, key, length))
            yield from self._hashes(hashes)
            yield from self._documents(documents)

    def _hashes(self, keys: Mapping[str, bytes]) -> Iterator[tuple[str, _RawContent]]:
        replies = self._server.pipeline([("HMGET", key, *self.hash_fields) for key in keys.values()])
        for session_id, values in zip(keys, replies, strict=True):
            if values is not None:
                yield session_id, values

    def _documents(self, documents: list[_StringKey]) -> Iterator[tuple[str, _RawContent]]:
        for group in batches_by_weight(documents, lambda d: d.length, _BYTES_AT_ONCE):
            replies = self._server.evaluate(scripts.TEXTS, [d.key for d in group])
            for document, text in zip(group, replies, strict=True):
                if text is not None:
                    yield document.session_id, text


def _mark(raw: _RawContent) -> str:
    if raw is None:
        return ""
    if isinstance(raw, bytes):
        return "s" + _digest(raw)
    return "h" + _digest(b"".join(b"-" if value is None else b"%d:%b" % (len(value), value) for value in raw))


def _digest(value: bytes) -> str:
    return hashlib.sha1(value, usedforsecurity=False).hexdigest()
