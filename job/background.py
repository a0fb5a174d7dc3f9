"""Waiting for one store while the other works: pages are asked for, or looked up, in a second thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, Self, TypeVar

S = TypeVar("S")
T = TypeVar("T")


class Pending(Generic[T]):
    """What a function will have returned or raised."""

    def __init__(self, function: Callable[[], T]) -> None:
        # What is summed up or logged for the first thread is so for the second, too.
        context = copy_context()
        self._function: Callable[[], T] = lambda: context.run(function)
        self._done = threading.Event()
        self._value: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        """Calls the function."""
        try:
            self._value.append(self._function())
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()

    def result(self) -> T:
        """Waits for the function, and returns what it returned.

        Raises:
            Whatever the function raised.
        """
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value[0]


class Worker:
    """A thread that calls functions, one after the other. Left with something to do, it never holds up the end."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Pending[object] | None] = SimpleQueue()

    def __enter__(self) -> Self:
        threading.Thread(target=self._work, name="ahead", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)

    def begin(self, function: Callable[[], T]) -> Pending[T]:
        """Has the function called when its turn comes."""
        pending = Pending(function)
        self._queue.put(pending)  # type: ignore[arg-type]
        return pending

    def _work(self) -> None:
        while (pending := self._queue.get()) is not None:
            pending.run()


def ahead(pages: Iterator[T]) -> Iterator[T]:
    """The pages; each is asked for while the caller works on the one before it. One page is in memory besides."""
    with Worker() as worker:
        following = worker.begin(partial(_next, pages))
        while page := following.result():
            following = worker.begin(partial(_next, pages))
            yield page[0]


def alongside(pages: Iterable[S], look_up: Callable[[S], T]) -> Iterator[tuple[S, T]]:
    """The pages with what was looked up for them, while the next page was asked for."""
    with Worker() as worker:
        before: tuple[S, Pending[T]] | None = None
        for page in pages:
            this = (page, worker.begin(partial(look_up, page)))
            if before is not None:
                yield before[0], before[1].result()
            before = this
        if before is not None:
            yield before[0], before[1].result()


def _next(pages: Iterator[T]) -> list[T]:
    for page in pages:
        return [page]
    return []
