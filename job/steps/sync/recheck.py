"""Rechecks findings after a grace period: an application may be between its writes to the database and to Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from stores.model.batches import batches
from stores.waiting.clock import RunClock

T = TypeVar("T")

_CAPACITY = 100_000
_BATCH_SIZE = 500


class Recheck(Generic[T]):
    """Collects findings and handles those that are still true after the grace period.

    Each batch is rechecked right before it is handled. Findings are collected first, up to the capacity, so that their
    number can be checked before the first of them is handled.

    Args:
        clock: waits for the end of the grace period; checked before each batch for a request to stop.
        grace_seconds: how long an application may be between its two writes.
        judge: gets the number of findings so far; raises to have none of the collected ones handled.
        confirm: returns those of a batch that are still true.
        settle: handles confirmed findings.
        capacity: most findings in memory; when it is reached, the collected ones are handled.
    """

    def __init__(
        self,
        clock: RunClock,
        grace_seconds: float,
        *,
        judge: Callable[[int], None],
        confirm: Callable[[Sequence[T]], Sequence[T]],
        settle: Callable[[Sequence[T]], None],
        capacity: int = _CAPACITY,
    ) -> None:
        self._clock = clock
        self._grace_seconds = grace_seconds
        self._judge = judge
        self._confirm = confirm
        self._settle = settle
        self._capacity = capacity
        self._collected: dict[T, None] = {}
        self._total = 0
        self._due = 0.0

    def add(self, findings: Iterable[T], *, grace_passed: bool = False) -> None:
        """Adds findings; one that is already collected is not added twice.

        Args:
            findings: what looks wrong.
            grace_passed: whether they are known to have been true for the whole grace period.
        """
        for finding in findings:
            if finding in self._collected:
                continue
            if len(self._collected) >= self._capacity:
                self.flush()
            self._collected[finding] = None
            self._total += 1
            if not grace_passed:
                self._due = self._clock.elapsed_seconds + self._grace_seconds

    def flush(self) -> None:
        """Rechecks and handles the collected findings, after at most one wait.

        Raises:
            StopRequestedError: the run has to stop; the next run finds what is not handled yet.
        """
        if not self._collected:
            return
        self._judge(self._total)
        wait = self._due - self._clock.elapsed_seconds
        if wait > 0:
            self._clock.wait(wait)
        for batch in batches(self._collected, _BATCH_SIZE):
            self._clock.checkpoint()
            confirmed = self._confirm(batch)
            if confirmed:
                self._settle(confirmed)
        self._collected.clear()
