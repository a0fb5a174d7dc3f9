"""Calls in a second thread, so that one store works while another is waited for; each is a ``Future``.

The threads are daemons: one that hangs does not hold up the end of the process. Those of the executors of the standard
library would, for the interpreter joins them when it exits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, Self, TypeVar

S = TypeVar("S")
T = TypeVar("T")


def call_in_thread(function: Callable[[], T], name: str) -> Future[T]:
    """Calls a function in a daemon thread of its own.

    Args:
        function: what to call.
        name: of the thread.
    """
    future: Future[T] = Future()
    threading.Thread(target=_fulfil, args=(future, function), name=name, daemon=True).start()
    return future


class DaemonExecutor:
    """A daemon thread that calls functions, one after the other."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def __enter__(self) -> Self:
        threading.Thread(target=self._work, name="background", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.put(None)

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Has the function called when its turn comes."""
        future: Future[T] = Future()
        # In the caller's context: what is summed up or logged for the first thread is so for the second, too.
        self._calls.put(partial(copy_context().run, _fulfil, future, function))
        return future

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


class BackgroundCall:
    """One call at a time in a second thread. Whatever was started is done when this is left, however that happens."""

    def __init__(self) -> None:
        self._executor = DaemonExecutor()
        self._started: Future[None] | None = None

    def __enter__(self) -> Self:
        self._executor.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.__exit__(kind, error, trace)
        if error is None:
            self.wait()
        elif self._started is not None:
            wait([self._started])  # of two errors, the one that is under way is raised

    def start(self, function: Callable[[], None]) -> None:
        """Has the function called, once the call before it is done.

        Raises:
            Whatever the call before raised; then the function is not called.
        """
        self.wait()
        self._started = self._executor.submit(function)

    def wait(self) -> None:
        """Waits until the call that was started is done.

        Raises:
            Whatever it raised.
        """
        started, self._started = self._started, None
        if started is not None:
            started.result()


class Prefetch(Generic[T]):
    """Pages that are asked for in a second thread while the caller is at work on something else.

    Args:
        pages: the pages.
        most: how many of them may be in memory, waiting for the caller.
    """

    def __init__(self, pages: Iterator[T], most: int) -> None:
        self._pages = pages
        self._most = most
        self._executor = DaemonExecutor()
        self._asked: deque[Future[list[T]]] = deque()
        self._closed = False

    def __enter__(self) -> Self:
        self._executor.__enter__()
        for _ in range(self._most):
            self._ask()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._executor.__exit__(kind, error, trace)

    def ready(self) -> Iterator[T]:
        """Those of the pages that are there already; what went wrong with one is raised in its place."""
        while self._asked and self._asked[0].done():
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
        self._asked.append(self._executor.submit(self._next))

    def _next(self) -> list[T]:
        """One page, or none where there is no more, or nobody left to take it."""
        if not self._closed:
            for page in self._pages:
                return [page]
        return []


def prefetched(pages: Iterator[T]) -> Iterator[T]:
    """The pages; each is asked for while the caller works on the one before it. One page is in memory besides."""
    with Prefetch(pages, 1) as prefetch:
        yield from prefetch


def with_lookups(pages: Iterable[S], look_up: Callable[[S], T]) -> Iterator[tuple[S, T]]:
    """The pages, each with what was looked up for it while the next page was asked for."""
    with DaemonExecutor() as executor:
        before: tuple[S, Future[T]] | None = None
        for page in pages:
            this = (page, executor.submit(partial(look_up, page)))
            if before is not None:
                yield before[0], before[1].result()
            before = this
        if before is not None:
            yield before[0], before[1].result()


def _fulfil(future: Future[T], function: Callable[[], T]) -> None:
    try:
        value = function()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(value)
