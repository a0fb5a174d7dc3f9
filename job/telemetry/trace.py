"""The interface of a run's trace, and the implementation for runs that are not traced.

The other implementation is :mod:`job.telemetry.opentelemetry_export`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from policy.manifest import SessionPolicy
from policy.opentelemetry_env import CHANGE_COUNTS, counts
from policy.report import RunReport
from stores.model.tally import Tally


def changed_counts(before: Tally, after: Tally) -> dict[str, int]:
    """The counts that a step changed: by how much it raised what was done, and the new values of what was found."""
    old, new = (counts(tally.counts(), tally.redis.counts()) for tally in (before, after))
    return {k: count - old[k] if k in CHANGE_COUNTS else count for k, count in new.items() if count != old[k]}


class Export(Protocol):
    """An export to a collector that is in progress."""

    def wait(self) -> list[str]:
        """Waits for it, at most until EXPORT_SECONDS (policy.opentelemetry_env) after its start.

        Returns what no collector accepted in time: ``traces``, ``metrics``.
        """


class Trace(Protocol):
    """The trace of a run."""

    @property
    def id(self) -> str | None:
        """The trace id, 32 hexadecimal digits; None if the run is not traced."""

    def step(self, name: str, tally: Tally) -> AbstractContextManager[None]:
        """A span for a step of the run, with its counts and its calls to the stores."""

    def set_policy(self, policy: SessionPolicy, database_url: str | None, redis_url: str | None) -> None:
        """Sets the attributes of the policy and its stores. Of the URLs, only host and port are used."""

    def finish(self, report: RunReport) -> Export:
        """Ends the trace and starts to export it, with the run's metrics.

        Args:
            report: of the run; it must already be written as the termination message.
        """


class NoExport:
    """Nothing to export."""

    def wait(self) -> list[str]:
        """Returns at once: nothing was exported."""
        return []


class NoTrace:
    """Trace of a run that is not traced."""

    id = None

    def step(self, name: str, tally: Tally) -> AbstractContextManager[None]:
        """Does nothing."""
        return nullcontext()

    def set_policy(self, policy: SessionPolicy, database_url: str | None, redis_url: str | None) -> None:
        """Does nothing."""

    def finish(self, report: RunReport) -> Export:
        """Exports nothing."""
        return NoExport()
