"""A session as the steps see it, and what they may ask of the stores."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from policy.spec import OnExceed

if TYPE_CHECKING:
    from stores.model.key_range import KeyRange
    from stores.model.strategy import Choice


class Cause(StrEnum):
    """Why a session was ended."""

    EXPIRED = "Expired"
    EVICTED = "Evicted"
    DESYNCED = "Desynced"
    DUPLICATE = "Duplicate"
    ABNORMAL = "Abnormal"
    REVOKED = "Revoked"


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

    @property
    def seconds(self) -> float | None:
        """For how long it was in use, from its beginning to its last use; None if not known."""
        if self.created_at is None or self.last_accessed_at is None:
            return None
        return max(0.0, (self.last_accessed_at - self.created_at).total_seconds())


@runtime_checkable
class HasDurations(Protocol):
    """Sessions that tell their durations without being looked at one by one."""

    @property
    def durations(self) -> Sequence[float | None]:
        """:attr:`Session.seconds` of each."""


LogFields = tuple[Any, Any, str | None, str | None]
"""What logs say of a session: id, owner, and both times as text; None for what is not known."""


@runtime_checkable
class HasLogFields(Protocol):
    """Sessions that tell what logs say of them without being looked at one by one."""

    def log_fields(self) -> Iterable[LogFields]:
        """What logs say of each."""


def durations(sessions: Sequence[Session]) -> Sequence[float | None]:
    """:attr:`Session.seconds` of each."""
    return sessions.durations if isinstance(sessions, HasDurations) else [session.seconds for session in sessions]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A session that the store whose word decides calls expired.

    Attributes:
        session: the session.
        unused_since: it is merely idle, and lives on if somebody knows of a use since then; None where it has ended
            however much it is used.
    """

    session: Session
    unused_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class DeletionTotals:
    """Deleted sessions of which nobody asked to know each.

    Attributes:
        count: how many.
        measured: of how many it is known for how long they were in use.
        seconds: how long these were, together.
        some_ids: of a few of them.
    """

    count: int
    measured: int
    seconds: float
    some_ids: Sequence[Any]

    def __len__(self) -> int:
        return self.count


@dataclass(slots=True)
class Deletion:
    """What became of a batch.

    Attributes:
        deleted: the sessions that are gone.
        failed: how many could not be deleted. The rest was in use, or no longer due.
    """

    deleted: Sequence[Session] = field(default_factory=list)
    failed: int = 0


@dataclass(frozen=True, slots=True)
class RangeDeletion:
    """What became of a part of a store.

    Attributes:
        deleted: what is gone.
        failed: how many sessions could not be deleted.
        unlogged: those of the deleted that the cleanup log is still to be told of.
    """

    deleted: Sequence[Session] | DeletionTotals
    failed: int = 0
    unlogged: Sequence[Session] = ()


@dataclass(frozen=True, slots=True)
class SessionTotals:
    """How many sessions there are.

    Attributes:
        total: all.
        expired: those past their timeout.
        users: users with a live session.
    """

    total: int
    expired: int
    users: int

    @property
    def active(self) -> int:
        """Live sessions."""
        return self.total - self.expired


class DatabaseSessions(Protocol):
    """What the Redis synchronisation asks of the database."""

    def existing(self, keys: Collection[str]) -> set[str]:
        """Those of the ids, spelt as in Redis, that have a row, live or not.

        An id that the id column's type cannot hold (no UUID, no number) has none.
        """

    def live_id_pages(self) -> Iterator[Sequence[Any]]:
        """The ids of all live sessions, many at a time."""

    def live_sessions(self, ids: Sequence[Any]) -> list[Session]:
        """Those of the sessions that are live."""

    def delete_live(self, sessions: Sequence[Session]) -> Deletion:
        """Deletes these in one transaction, but for any that was used since it was read."""


class Sessions(DatabaseSessions, Protocol):
    """What the steps ask of the store whose word on a session decides: the database or, without one, Redis."""

    def totals(self) -> SessionTotals:
        """Counts all sessions."""

    def strategy(self) -> Choice | None:
        """How expired sessions are found, and why; None where there is only one way."""

    def expired_pages(self, key_ranges: Sequence[KeyRange] | None = None) -> Iterator[list[Candidate]]:
        """Expired sessions, a batch at a time.

        Args:
            key_ranges: the parts of the store to look at; None for all of it.
        """

    def bulk_delete_expired(self, key_ranges: Sequence[KeyRange] | None = None) -> Iterator[RangeDeletion]:
        """Deletes all expired sessions, a batch at a time, where nobody else is to be asked about them.

        Args:
            key_ranges: the parts of the store to look at; None for all of it.
        """

    def count_over_limit(self, limit: int, exempt: Collection[str]) -> int:
        """How many live sessions are over their user's limit."""

    def over_limit_pages(self, limit: int, on_exceed: OnExceed, exempt: Collection[str]) -> Iterator[list[Session]]:
        """The live sessions over their user's limit, a batch at a time: those that ``on_exceed`` says should go."""

    def delete_expired(self, sessions: Sequence[Session]) -> Deletion:
        """Deletes those of the sessions that are still past their timeout."""

    def delete_over_limit(self, sessions: Sequence[Session], limit: int, on_exceed: OnExceed) -> Deletion:
        """Deletes those of the sessions that are still over their user's limit."""


class RedisSessions(Protocol):
    """What the other steps ask of Redis."""

    def last_accesses(self, keys: Sequence[str]) -> Mapping[str, datetime]:
        """When Redis says that these sessions were last used; sessions it knows nothing about are left out."""

    def delete(self, sessions: Sequence[Session]) -> int:
        """Deletes session keys, access logs and index entries of sessions whose rows are gone.

        Returns how many session keys there were.
        """
