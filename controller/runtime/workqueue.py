"""A work queue as Kubernetes controllers use it.

Each key is processed by one worker at a time; a key that is added several times meanwhile is processed once; one that
failed is retried with exponential back-off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

_FIRST_RETRY_SECONDS: Final = 0.5
_LONGEST_RETRY_SECONDS: Final = 60.0


def _unobserved(_seconds: float) -> None:
    pass


class WorkQueue(Generic[Key]):
    """Keys that wait for a worker. For use within one event loop."""

    def __init__(self, observe_wait: Callable[[float], None] = _unobserved) -> None:
        """Make an empty queue.

        Args:
            observe_wait: called with the seconds that a key waited, for each key that a worker takes.
        """
        self._observe_wait = observe_wait
        self._ready: asyncio.Queue[Key | None] = asyncio.Queue()  # None wakes a worker when the queue is closed
        self._closed = False
        self._waiting: dict[Key, float] = {}  # in the queue, since when
        self._active: set[Key] = set()  # with a worker
        self._again: set[Key] = set()  # with a worker, and added since
        self._failures: dict[Key, int] = {}
        self._retry_at: dict[Key, float] = {}  # of those that failed: when their back-off is over
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        """How many keys wait for a worker."""
        return len(self._waiting)

    def add(self, key: Key) -> None:
        """Queue the key; it is processed as soon as a worker is free."""
        self._cancel_timer(key)
        if key in self._active:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = time.monotonic()
            self._ready.put_nowait(key)

    def add_after(self, key: Key, delay_seconds: float) -> None:
        """Queue the key after a delay, or earlier if it is added with a shorter one."""
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_seconds
        timer = self._timers.get(key)
        if key in self._waiting or (timer is not None and timer.when() <= due):
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_at(due, self._timer_expired, key)

    def retry(self, key: Key, at_least_seconds: float = 0) -> float:
        """Queue the key again after its back-off, and return that delay in seconds.

        Each failure doubles it, except those before it was over: when a key is added again and again while a server is
        unavailable for a moment, all failures count as one.
        """
        now = asyncio.get_running_loop().time()
        left = self._retry_at.get(key, now) - now
        if left <= 0:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            left = min(_FIRST_RETRY_SECONDS * 2.0 ** min(failures, 16), _LONGEST_RETRY_SECONDS)
        delay = max(left, at_least_seconds)
        self._retry_at[key] = now + delay
        self.add_after(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """Reset the key's back-off after a success."""
        self._failures.pop(key, None)
        self._retry_at.pop(key, None)

    def close(self) -> None:
        """Hand out no more keys: each worker ends when it is done with its key."""
        self._closed = True
        self._ready.put_nowait(None)

    async def work(self, process: Callable[[Key], Awaitable[None]]) -> None:
        """Process keys, one after the other, until the queue is closed. Run several of these for several workers."""
        while True:
            key = await self._ready.get()
            if self._closed or key is None:
                self._ready.put_nowait(None)  # for the next worker
                return
            self._observe_wait(time.monotonic() - self._waiting.pop(key))
            self._active.add(key)
            try:
                await process(key)
            finally:
                self._active.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    def _timer_expired(self, key: Key) -> None:
        del self._timers[key]
        self.add(key)

    def _cancel_timer(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
