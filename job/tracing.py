"""What a run tells its trace, whether or not there is one. OpenTelemetry itself is in :mod:`job.telemetry`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from job.errors import LockHeldError, StopRequestedError
from job.tally import Tally
from policy.manifest import SessionPolicy
from policy.report import RunReport
from policy.telemetry import DONE, counts


class Store(StrEnum):
    """What a step may wait for."""

    DATABASE = "database"
    REDIS = "redis"


@dataclass(slots=True)
class Calls:
    """What a step asked of a store: there may be millions of statements, so they are only summed up.

    Attributes:
        began_ns: when the first began, in nanoseconds since 1970.
        ended_ns: when the last ended.
        count: how many, each attempt counted.
        failed: how many of them failed.
        seconds: how long all of them took.
        error: why the last failed; None if it did not.
    """

    began_ns: int
    ended_ns: int = 0
    count: int = 0
    failed: int = 0
    seconds: float = 0.0
    error: BaseException | None = None


_calls: ContextVar[dict[Store, Calls] | None] = ContextVar("calls", default=None)


@contextmanager
def collected_calls() -> Iterator[Mapping[Store, Calls]]:
    """Sums up what this thread asks of the stores within the block."""
    collected: dict[Store, Calls] = {}
    token = _calls.set(collected)
    try:
        yield collected
    finally:
        _calls.reset(token)


@contextmanager
def calling(store: Store) -> Iterator[None]:
    """Around everything that waits for a store."""
    collected = _calls.get()
    if collected is None:
        yield
        return
    calls = collected.setdefault(store, Calls(time.time_ns()))
    began, failure = time.monotonic(), None
    try:
        yield
    except BaseException as error:
        failure = error if is_failure(error) else None
        raise
    finally:
        calls.count += 1
        calls.failed += failure is not None
        calls.error = failure
        calls.seconds += time.monotonic() - began
        calls.ended_ns = time.time_ns()


def is_failure(error: BaseException) -> bool:
    """Whether something went wrong; to be told to stop, or to find another run at work, is in good order."""
    return not isinstance(error, (LockHeldError, StopRequestedError))


def changes(before: Tally, after: Tally) -> dict[str, int]:
    """What a step has counted: how much it did, and how much is known to be there since, where that is new."""
    old, new = (counts(tally.counts(), tally.redis.counts()) for tally in (before, after))
    return {k: count - old[k] if k in DONE else count for k, count in new.items() if count != old[k]}


class Delivery(Protocol):
    """What is on its way to a collector."""

    def wait(self) -> list[str]:
        """Waits no longer than :data:`policy.telemetry.EXPORT_SECONDS` since it was sent.

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

    def finish(self, report: RunReport) -> Delivery:
        """Ends the trace and begins to send it, and the run's metrics.

        Args:
            report: how the run ended; must be where the controller finds it already.
        """


class NotDelivered:
    """Nothing was to be sent."""

    def wait(self) -> list[str]:
        """Waits for nothing."""
        return []


class Untraced:
    """No trace."""

    id = None

    def step(self, name: str, tally: Tally) -> AbstractContextManager[None]:
        """Tells nobody."""
        return nullcontext()

    def describe(self, policy: SessionPolicy, database_url: str | None, redis_url: str | None) -> None:
        """Tells nobody."""

    def finish(self, report: RunReport) -> Delivery:
        """Sends nothing."""
        return NotDelivered()
