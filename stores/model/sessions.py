"""Sessions, what becomes of them, and the interfaces of the stores that have them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
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
        """The id as text, as in Redis keys and index sets."""
        return str(self.id)

    @property
    def seconds(self) -> float | None:
        """For how long it was in use, from its beginning to its last use; None if not known."""
        if self.created_at is None or self.last_accessed_at is None:
            return None
        return max(0.0, (self.last_accessed_at - self.created_at).total_seconds())


@runtime_checkable
class HasDurations(Protocol):
    """Sessions whose durations can be read all at once."""

    @property
    def durations(self) -> Sequence[float | None]:
        """:attr:`Session.seconds` of each."""


LogFields = tuple[Any, Any, str | None, str | None]
"""What logs have of a session: id, owner, and both times as text; None for what is not known."""


@runtime_checkable
class HasLogFields(Protocol):
    """Sessions whose log fields can be read all at once."""

    def log_fields(self) -> Iterable[LogFields]:
        """What logs have of each."""


def durations(sessions: Sequence[Session]) -> Sequence[float | None]:
    """:attr:`Session.seconds` of each."""
    return sessions.durations if isinstance(sessions, HasDurations) else [session.seconds for session in sessions]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A session that has expired by the store that decides.

    Attributes:
        session: the session.
        unused_since: it is merely idle, and is kept if Redis knows of a use since then; None where it has ended however
            much it is used.
    """

    session: Session
    unused_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class DeletionTotals:
    """How many sessions were deleted, where they need not be reported one by one.

    Attributes:
        count: how many.
        measured: of how many the duration is known.
        seconds: the sum of these durations.
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
    """The result of deleting a batch.

    Attributes:
        deleted: the sessions that were deleted.
        failed: how many could not be deleted. The rest was in use, or no longer due.
    """

    deleted: Sequence[Session] = field(default_factory=list)
    failed: int = 0


@dataclass(frozen=True, slots=True)
class RangeDeletion:
    """The result of deleting what has expired in a range of a store.

    Attributes:
        deleted: what was deleted.
        failed: how many sessions could not be deleted.
        unlogged: those of the deleted that still have to be written to the cleanup log.
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
        """Those of the ids, as text, that have a row, live or not.

        An id that the id column's type cannot hold (no UUID, no number) has none.
        """

    def live_id_pages(self) -> Iterator[Sequence[Any]]:
        """The ids of all live sessions, many at a time."""

    def live_sessions(self, ids: Sequence[Any]) -> list[Session]:
        """Those of the sessions that are live."""

    def delete_live(self, sessions: Sequence[Session]) -> Deletion:
        """Deletes these in one transaction, but for any that was used since it was read."""


class Sessions(DatabaseSessions, Protocol):
    """What the steps ask of the store that decides which sessions live: the database or, without one, Redis."""

    def totals(self) -> SessionTotals:
        """Counts all sessions."""

    def strategy(self) -> Choice | None:
        """How expired sessions are found, and why; None where there is only one way."""

    def expired_pages(self, key_ranges: Sequence[KeyRange] | None = None) -> Iterator[list[Candidate]]:
        """Expired sessions, a batch at a time.

        Args:
            key_ranges: the parts of the store; None for all of it.
        """

    def bulk_delete_expired(self, key_ranges: Sequence[KeyRange] | None = None) -> Iterator[RangeDeletion]:
        """Deletes all expired sessions, a range at a time, where no other store has to be asked about them.

        Args:
            key_ranges: the parts of the store; None for all of it.
        """

    def count_over_limit(self, limit: int, exempt: Collection[str]) -> int:
        """How many live sessions are over their user's limit."""

    def over_limit_pages(self, limit: int, on_exceed: OnExceed, exempt: Collection[str]) -> Iterator[list[Session]]:
        """The live sessions over their user's limit, a batch at a time: those that ``on_exceed`` says should go."""

    def delete_expired(self, sessions: Sequence[Session]) -> Deletion:
        """Deletes those of the sessions that are still past their timeout."""

    def delete_over_limit(self, sessions: Sequence[Session], limit: int, on_exceed: OnExceed) -> Deletion:
        """Deletes those of the sessions that are still over their user's limit."""
