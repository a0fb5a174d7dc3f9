"""Waiting for one store while the other works: what is asked for, looked up or written is so in a second thread."""

from __future__ import annotations

import threading
from collections import deque
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

    @property
    def is_done(self) -> bool:
        """Whether the function has returned or raised."""
        return self._done.is_set()

    def wait(self) -> None:
        """Waits for the function."""
        self._done.wait()

    def result(self) -> T:
        """Waits for the function, and returns what it returned.

        Raises:
            Whatever the function raised.
        """
        self.wait()
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


class Aside:
    """Does one thing at a time in a second thread. Whatever was begun is done when it is left, however that happens."""

    def __init__(self) -> None:
        self._worker = Worker()
        self._begun: Pending[None] | None = None

    def __enter__(self) -> Self:
        self._worker.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.__exit__(kind, error, trace)
        if error is None:
            self.wait()
        elif self._begun is not None:
            self._begun.wait()  # of two errors, the one that is under way is told

    def begin(self, function: Callable[[], None]) -> None:
        """Has the function called, after what was begun before.

        Raises:
            Whatever that raised; then the function is not called.
        """
        self.wait()
        self._begun = self._worker.begin(function)

    def wait(self) -> None:
        """Waits until what was begun is done.

        Raises:
            Whatever it raised.
        """
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.result()


class Prefetch(Generic[T]):
    """Pages that are asked for in a second thread while the caller is at work on something else.

    Args:
        pages: the pages.
        most: how many of them may be in memory, waiting for the caller.
    """

    def __init__(self, pages: Iterator[T], most: int) -> None:
        self._pages = pages
        self._most = most
        self._worker = Worker()
        self._asked: deque[Pending[list[T]]] = deque()
        self._left = False

    def __enter__(self) -> Self:
        self._worker.__enter__()
        for _ in range(self._most):
            self._ask()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = True
        self._worker.__exit__(kind, error, trace)

    def ready(self) -> Iterator[T]:
        """Those of the pages that are there already; what went wrong with one is raised in its place."""
        while self._asked and self._asked[0].is_done:
            yield from self._take()

    def __iter__(self) -> Iterator[T]:
        """All pages that were not handed out yet; the next is waited for."""
        while self._asked:
            yield from self._take()

    def _take(self) -> list[T]:
        page = self._asked.popleft().result()
        if page:
            self._ask()
        return page

    def _ask(self) -> None:
        self._asked.append(self._worker.begin(self._next))

    def _next(self) -> list[T]:
        """One page, or none where there is no more, or nobody left to take it."""
        if not self._left:
            for page in self._pages:
                return [page]
        return []


def ahead(pages: Iterator[T]) -> Iterator[T]:
    """The pages; each is asked for while the caller works on the one before it. One page is in memory besides."""
    with Prefetch(pages, 1) as prefetch:
        yield from prefetch


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
