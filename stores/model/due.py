"""How many sessions a run still has to delete, by cause."""

from __future__ import annotations

from dataclasses import dataclass, field

from stores.model.sessions import Cause


@dataclass(slots=True)
class _Count:
    """Of one cause.

    Attributes:
        found: sessions counted before anything was deleted.
        settled: sessions that the step has come across since, whatever became of them.
        kept_back: those of the settled that stay due, because the run may not delete any more.
    """

    found: int = 0
    settled: int = 0
    kept_back: int = 0

    @property
    def remaining(self) -> int:
        # A step may come across more than were counted: sessions expire while it is at work.
        return self.kept_back + max(0, self.found - self.settled)


@dataclass(slots=True)
class Due:
    """The sessions that a run is to delete: how many were found, and how many of them remain.

    A dry run has none.
    """

    # All causes from the beginning: another thread may read while the run counts.
    _counts: dict[Cause, _Count] = field(default_factory=lambda: {cause: _Count() for cause in Cause})

    def expect(self, cause: Cause, found: int) -> None:
        """So many sessions were counted that are to go for this cause."""
        self._counts[cause].found = found

    def settle(self, cause: Cause, settled: int, kept_back: int = 0) -> None:
        """A batch was dealt with.

        Args:
            cause: why its sessions were due.
            settled: how many sessions the step has come across.
            kept_back: how many of them stay due, because of ``safety.maxDeletions``.
        """
        count = self._counts[cause]
        count.settled += settled
        count.kept_back += kept_back

    def finish(self, cause: Cause) -> None:
        """The step has looked at everything: what it did not come across is in use again, or was deleted by others."""
        count = self._counts[cause]
        count.found = min(count.found, count.settled)

    @property
    def remaining(self) -> int:
        """Sessions that are due and still there."""
        return sum(count.remaining for count in self._counts.values())
