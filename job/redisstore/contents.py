"""Reading the content of many sessions, with little of it in memory at one time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from job.redisstore.batches import batches, batches_by_weight
from job.redisstore.payload import UNKNOWN, Content, from_hash, from_json, hash_fields
from job.redisstore.server import RedisServer
from policy.stores import RedisFields

_GROUP = 500
_BYTES_AT_ONCE = 4 * 2**20
# A session larger than this is not read: decoded, it might not fit the container's memory.
_MAX_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class _Document:
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

    def read(self, keys: Mapping[str, bytes]) -> dict[str, Content]:
        """The content under these keys, by session id. Sessions that are not there, or are neither, are left out."""
        found: dict[str, Content] = {}
        for group in batches(keys.items(), _GROUP):
            lengths = self._server.pipeline([("STRLEN", key) for _, key in group])
            documents: list[_Document] = []
            hashes: dict[str, bytes] = {}
            for (session_id, key), length in zip(group, lengths, strict=True):
                if length is None:
                    hashes[session_id] = key
                elif length > _MAX_BYTES:
                    found[session_id] = UNKNOWN
                elif length:
                    documents.append(_Document(session_id, key, length))
            found.update(self._hashes(hashes))
            found.update(self._documents(documents))
        return found

    def _hashes(self, keys: Mapping[str, bytes]) -> Iterator[tuple[str, Content]]:
        fields = hash_fields(self._fields)
        replies = self._server.pipeline([("HMGET", key, *fields) for key in keys.values()])
        for session_id, values in zip(keys, replies, strict=True):
            if values is not None:
                yield session_id, from_hash(values, self._fields)

    def _documents(self, documents: list[_Document]) -> Iterator[tuple[str, Content]]:
        for group in batches_by_weight(documents, lambda d: d.length, _BYTES_AT_ONCE):
            replies = self._server.pipeline([("GET", d.key) for d in group])
            for document, text in zip(group, replies, strict=True):
                if text is not None:
                    yield document.session_id, from_json(text, self._fields)
