"""Counts a step's calls to the stores: how many, how long they took, how many failed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from stores.model.errors import LockHeldError, StopRequestedError


class Store(StrEnum):
    """A store that a step may wait for."""

    DATABASE = "database"
    REDIS = "redis"


@dataclass(slots=True)
class Calls:
    """The calls of a step to a store, as totals: there may be millions.

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
    """Counts the calls to the stores within the block, also those in threads that the block starts."""
    collected: dict[Store, Calls] = {}
    token = _calls.set(collected)
    try:
        yield collected
    finally:
        _calls.reset(token)


@contextmanager
def calling(store: Store) -> Iterator[None]:
    """Counts the block as one call to a store."""
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
    """Whether it is a failure; a request to stop, or a lock that another run holds, is none."""
    return not isinstance(error, (LockHeldError, StopRequestedError))
