"""Several calls at once, with a bound on how long they are waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

from stores.waiting.background import call_in_thread

T = TypeVar("T")


class BoundedCalls(Generic[T]):
    """Calls all functions at once, while the caller does something else.

    Args:
        functions: what to call, each in a daemon thread; one that hangs is left behind in it.
        name: of the threads.
        seconds: how long all of them together may take, counted from now.
    """

    def __init__(self, functions: Sequence[Callable[[], T]], name: str, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._futures = [call_in_thread(function, f"{name}-{number}") for number, function in enumerate(functions)]

    def wait(self) -> list[Future[T]]:
        """Waits for them as long as they may take. One that took too long is not done."""
        wait(self._futures, max(0.0, self._deadline - time.monotonic()))
        return self._futures


def call_all(functions: Sequence[Callable[[], T]], name: str, seconds: float) -> list[Future[T]]:
    """Calls all functions at once and waits for them; see :class:`BoundedCalls`."""
    return BoundedCalls(functions, name, seconds).wait()


def has_succeeded(future: Future[T]) -> bool:
    """Whether a call was done in time and raised nothing."""
    return future.done() and future.exception() is None
