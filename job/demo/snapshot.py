"""What both stores hold at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from stores.rules.details import Access


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the session table; the fields are its columns, in their order."""

    session_id: str
    user_id: str
    created_at: datetime
    last_accessed_at: datetime
    expires_at: datetime | None
    client: str
    address: str
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Both stores at one moment.

    Attributes:
        taken_at: when.
        rows: the session table, by session id.
        ttls: session keys in Redis by session id, with their TTL in seconds; None if they have none.
        used: when Redis says that a session was last used, for those that look idle in the table.
        index: entries of user indexes, as user and session id.
        logs: access logs, the newest entry first, by session id.
    """

    taken_at: datetime
    rows: dict[str, Row]
    ttls: dict[str, float | None]
    used: dict[str, datetime]
    index: frozenset[tuple[str, str]]
    logs: Mapping[str, tuple[Access, ...]]

    @property
    def stale_entries(self) -> set[tuple[str, str]]:
        """Index entries whose session is in neither store."""
        return {entry for entry in self.index if entry[1] not in self.rows and entry[1] not in self.ttls}

    def redis_says_used(self, session_id: str, since: datetime) -> bool:
        """Whether Redis saw the session in use since then."""
        used = self.used.get(session_id)
        return used is not None and used >= since

    def traces(self, session_ids: set[str]) -> int:
        """How many rows, session keys, index entries and access logs these sessions have."""
        return (
            len(session_ids & self.rows.keys())
            + len(session_ids & self.ttls.keys())
            + sum(session_id in session_ids for _, session_id in self.index)
            + len(session_ids & self.logs.keys())
        )

    def holds_the_same_as(self, other: Snapshot) -> bool:
        """Whether the same rows, keys, index entries and access logs are there."""
        return (
            self.rows == other.rows
            and self.ttls.keys() == other.ttls.keys()
            and self.index == other.index
            and self.logs == other.logs
        )
