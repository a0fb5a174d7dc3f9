"""What the demo's two stores hold at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple


class Row(NamedTuple):
    """A row of the session table; the fields are its columns, in their order."""

    session_id: str
    user_id: str
    created_at: datetime
    last_accessed_at: datetime
    expires_at: datetime | None
    client: str
    address: str
    revoked_at: datetime | None = None


class Key(NamedTuple):
    """A session key in Redis.

    Attributes:
        ttl_seconds: None if it has no TTL.
        last_accessed_at: what its value says; None if the value was not read.
        user_id: likewise; empty if the value was not read.
        created_at: likewise.
        is_hash: whether the value is a hash instead of JSON.
    """

    ttl_seconds: float | None
    last_accessed_at: datetime | None = None
    user_id: str = ""
    created_at: datetime | None = None
    is_hash: bool = False


class Access(NamedTuple):
    """An entry of a session's access log."""

    at: datetime
    address: str
    client: str
    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class StoreContents:
    """Both stores at one moment.

    Attributes:
        taken_at: the moment.
        rows: the session table, by session id.
        keys: session keys in Redis, by session id.
        index: entries of the user indexes in Redis, as user and session id.
        logs: access logs in Redis, the newest entry first, by session id.
    """

    taken_at: datetime
    rows: dict[str, Row]
    keys: dict[str, Key]
    index: set[tuple[str, str]]
    logs: dict[str, tuple[Access, ...]]

    @property
    def stale_entries(self) -> set[tuple[str, str]]:
        """Index entries whose session is in neither store."""
        return {entry for entry in self.index if entry[1] not in self.rows and entry[1] not in self.keys}

    def count_traces(self, session_ids: set[str]) -> int:
        """How many rows, session keys, index entries and access logs these sessions have."""
        in_index = sum(session_id in session_ids for _, session_id in self.index)
        return in_index + sum(len(session_ids & found.keys()) for found in (self.rows, self.keys, self.logs))

    def holds_the_same_as(self, other: StoreContents) -> bool:
        """Whether the same rows, keys, index entries and access logs are there."""
        ours, theirs = ((each.rows, each.keys.keys(), each.index, each.logs) for each in (self, other))
        return ours == theirs
