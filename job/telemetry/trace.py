"""What a run tells its trace, whether or not there is one.

OpenTelemetry itself is in :mod:`job.telemetry.opentelemetry_export`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from policy.manifest import SessionPolicy
from policy.opentelemetry_env import DONE, counts
from policy.report import RunReport
from stores.model.tally import Tally


def changed_counts(before: Tally, after: Tally) -> dict[str, int]:
    """What a step has counted: how much it did, and how much is known to be there since, where that is new."""
    old, new = (counts(tally.counts(), tally.redis.counts()) for tally in (before, after))
    return {k: count - old[k] if k in DONE else count for k, count in new.items() if count != old[k]}


class Export(Protocol):
    """What is on its way to a collector."""

    def wait(self) -> list[str]:
        """Waits no longer than :data:`policy.opentelemetry_env.EXPORT_SECONDS` since it was sent.

        Returns what no collector is known to have taken: ``traces``, ``metrics``.
        """


class Trace(Protocol):
    """The trace of a run, from its beginning."""

    @property
    def id(self) -> str | None:
        """Its id, 32 hexadecimal digits; None if this run is not traced."""

    def step(self, name: str, tally: Tally) -> AbstractContextManager[None]:
        """A step of the run, with what it counts and what it asks of the stores."""

    def describe(self, policy: SessionPolicy, database_url: str | None, redis_url: str | None) -> None:
        """Names the policy and its stores, once they are known. Of the URLs only host and port are told."""

    def finish(self, report: RunReport) -> Export:
        """Ends the trace and begins to send it, and the run's metrics.

        Args:
            report: how the run ended; must be where the controller finds it already.
        """


class NoExport:
    """Nothing was to be sent."""

    def wait(self) -> list[str]:
        """Waits for nothing."""
        return []


class NoTrace:
    """No trace."""

    id = None

    def step(self, name: str, tally: Tally) -> AbstractContextManager[None]:
        """Tells nobody."""
        return nullcontext()

    def describe(self, policy: SessionPolicy, database_url: str | None, redis_url: str | None) -> None:
        """Tells nobody."""

    def finish(self, report: RunReport) -> Export:
        """Sends nothing."""
        return NoExport()
