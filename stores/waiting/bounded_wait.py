"""Doing several things at once, and not waiting for those that hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What a function returned."""

    value: T


class Begun(Generic[T]):
    """Calls all functions at once, while the caller does something else.

    One that hangs is left behind in a daemon thread, which never holds up the end of the process. (Threads of
    concurrent.futures would: the interpreter joins them.)

    Args:
        functions: what to do.
        name: of the threads.
        seconds: how long all of them together may take, counted from now.
    """

    def __init__(self, functions: Sequence[Callable[[], T]], name: str, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._outcomes: dict[int, Done[T] | Exception] = {}
        self._threads = [
            threading.Thread(target=self._call, args=(number, function), name=f"{name}-{number}", daemon=True)
            for number, function in enumerate(functions)
        ]
        for thread in self._threads:
            thread.start()

    def outcomes(self) -> list[Done[T] | Exception | None]:
        """Waits for them. For each: what it returned, what it raised, or None if it is not done in time."""
        for thread in self._threads:
            thread.join(max(0.0, self._deadline - time.monotonic()))
        return [self._outcomes.get(number) for number in range(len(self._threads))]

    def _call(self, number: int, function: Callable[[], T]) -> None:
        try:
            self._outcomes[number] = Done(function())
        except Exception as error:
            self._outcomes[number] = error


def in_time(functions: Sequence[Callable[[], T]], name: str, seconds: float) -> list[Done[T] | Exception | None]:
    """Calls all functions at once and waits for them; see :class:`Begun`."""
    return Begun(functions, name, seconds).outcomes()
