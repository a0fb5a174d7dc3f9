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


def in_time(functions: Sequence[Callable[[], T]], seconds: float) -> list[Done[T] | Exception | None]:
    """Calls all functions at once. For each: what it returned, what it raised, or None if it is not done in time.

    One that hangs is left behind in a daemon thread, which never holds up the end of the process. (Threads of
    concurrent.futures would: the interpreter joins them.)

    Args:
        functions: what to do.
        seconds: how long to wait for all of them together.
    """
    deadline = time.monotonic() + seconds
    outcomes: dict[int, Done[T] | Exception] = {}

    def call(number: int, function: Callable[[], T]) -> None:
        try:
            outcomes[number] = Done(function())
        except Exception as error:
            outcomes[number] = error

    threads = [
        threading.Thread(target=call, args=(number, function), name=f"alert-{number}", daemon=True)
        for number, function in enumerate(functions)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [outcomes.get(number) for number in range(len(functions))]
