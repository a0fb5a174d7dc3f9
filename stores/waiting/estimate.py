"""Estimates how long deleting what remains takes, from the time that deleting has taken so far."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from policy.report import MAX_COUNT
from stores.waiting.clock import RunClock

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
# Up to twice a unit, the smaller one says more.
_UNITS = ((2 * _DAY, _DAY, "days"), (2 * _HOUR, _HOUR, "hours"), (2 * _MINUTE, _MINUTE, "minutes"))


class DeletingTime:
    """Time spent on deleting, with all that has to be read and looked up for it.

    Args:
        clock: of the run.
    """

    def __init__(self, clock: RunClock) -> None:
        self._clock = clock
        self._before = 0.0
        self._since: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around steps that delete."""
        self._since = self._clock.elapsed_seconds
        try:
            yield
        finally:
            self._before, self._since = self.seconds, None

    @property
    def seconds(self) -> float:
        """How long that has taken so far."""
        return self._before + (0.0 if self._since is None else self._clock.elapsed_seconds - self._since)

    def seconds_for(self, remaining: int, deleted: int) -> int | None:
        """How long deleting what remains would take.

        Args:
            remaining: sessions that are due to go, but still there.
            deleted: sessions that were deleted meanwhile.

        Returns:
            Whole seconds, at least 1; None if nothing remains, or nothing was deleted to measure a pace by.
        """
        if not remaining or not deleted:
            return None
        return max(1, min(math.ceil(remaining * self.seconds / deleted), MAX_COUNT))


def in_words(seconds: int) -> str:
    """A duration for people, no more exact than an estimate is: ``about 4 minutes``."""
    for least, unit, name in _UNITS:
        if seconds >= least:
            return f"about {round(seconds / unit)} {name}"
    return f"about {seconds} second{'' if seconds == 1 else 's'}"
