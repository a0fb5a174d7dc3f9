"""The counts of a run so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from policy.report import RedisCounts, SessionCounts
from stores.model.due import Due
from stores.model.sessions import DeletionTotals, Session, durations


@dataclass(slots=True)
class RedisTally:
    """Counts in Redis; the fields are those of :class:`policy.report.RedisCounts`."""

    sessions: int = 0
    deleted: int = 0
    orphaned: int = 0
    missing: int = 0
    index_entries_removed: int = 0
    ttl_added: int = 0

    def counts(self) -> RedisCounts:
        """As the report has it."""
        return RedisCounts(**asdict(self))


@dataclass(slots=True)
class Durations:
    """How long the deleted sessions were in use: from their beginning to their last use."""

    sessions: int = 0
    seconds: float = 0.0

    def add(self, deleted: Sequence[Session] | DeletionTotals) -> None:
        """Adds sessions; those of which it is not known do not count."""
        if isinstance(deleted, DeletionTotals):
            self.sessions += deleted.measured
            self.seconds += deleted.seconds
            return
        known = [seconds for seconds in durations(deleted) if seconds is not None]
        self.sessions += len(known)
        self.seconds += sum(known)

    @property
    def average_seconds(self) -> int | None:
        """The average, None without a session."""
        return round(self.seconds / self.sessions) if self.sessions else None


@dataclass(slots=True)
class Tally:
    """What a run has counted; the names are those of :class:`policy.report.SessionCounts`.

    Attributes:
        due: the sessions that the run is to delete, from which follows how many remain.
        redis: counts in Redis.
        durations: how long the deleted sessions were in use.
    """

    active: int = 0
    expired: int = 0
    over_limit: int = 0
    evicted: int = 0
    duplicate: int = 0
    abnormal: int = 0
    deleted: int = 0
    failed: int = 0
    due: Due = field(default_factory=Due)
    redis: RedisTally = field(default_factory=RedisTally)
    durations: Durations = field(default_factory=Durations)

    @property
    def remaining(self) -> int:
        """Sessions that are due and still there."""
        return self.due.remaining

    def counts(self) -> SessionCounts:
        """As the report has it."""
        return SessionCounts(**{name: getattr(self, name) for name in SessionCounts.model_fields})
