"""A session as the steps see it, and what they may ask of the stores."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Session:
    """A session's row.

    Attributes:
        id: the database's own value of the id column (text, UUID, number); opaque.
        user_id: likewise, None where there is no owner or no such column.
        created_at: when it began, None if not known.
        last_accessed_at: when it was last used, None if not known.
    """

    id: Any
    user_id: Any = None
    created_at: datetime | None = None
    last_accessed_at: datetime | None = None

    @property
    def key(self) -> str:
        """The id as Redis keys and index sets spell it."""
        return str(self.id)


class DatabaseSessions(Protocol):
    """What the Redis synchronisation asks of the database."""

    def existing(self, keys: Collection[str]) -> set[str]:
        """Those of the ids, spelt as in Redis, that have a row, live or not.

        An id that the id column's type cannot hold (no UUID, no number) has none.
        """

    def live_pages(self) -> Iterator[list[Session]]:
        """All live sessions, a batch at a time, in the order of their ids."""

    def delete_live(self, sessions: Sequence[Session]) -> list[Session]:
        """Deletes these in one transaction, but for any that was used since it was read. Returns the deleted ones."""


class RedisSessions(Protocol):
    """What the other steps ask of Redis."""

    def last_accesses(self, keys: Sequence[str]) -> Mapping[str, datetime]:
        """When Redis says that these sessions were last used; sessions it knows nothing about are left out."""

    def delete(self, sessions: Sequence[Session]) -> int:
        """Deletes session keys, access logs and index entries of sessions whose rows are gone.

        Returns how many session keys there were.
        """
