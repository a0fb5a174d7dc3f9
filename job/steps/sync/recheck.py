"""Nothing is judged by its first look: an application may be half-way between its writes to the two stores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from stores.model.batches import batches
from stores.waiting.clock import RunClock

T = TypeVar("T")

_CAPACITY = 100_000
_BATCH = 500


class Recheck(Generic[T]):
    """Holds suspects until they have looked the same twice, the grace apart.

    A suspect is looked at again right before it is settled, a batch at a time. Suspects are held, up to the capacity,
    so that their number can be judged before the first of them is settled.

    Args:
        clock: waits out the grace; asked before each batch whether the run has to stop.
        grace_seconds: how long an application may be half-way.
        judge: is told how many suspects there were so far; raises to have none of those that are held settled.
        confirm: those of a batch that look the same again.
        settle: does what is to be done with confirmed suspects.
        capacity: how many are held; when there are more, those that are held are settled.
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
        self._held: dict[T, None] = {}
        self._suspects = 0
        self._due = 0.0

    def hold(self, suspects: Iterable[T], *, ripe: bool = False) -> None:
        """Takes suspects, as they are seen for the first time; one that is held already is not taken twice.

        Args:
            suspects: what looks wrong.
            ripe: whether it is known that they have looked so for the length of the grace.
        """
        for suspect in suspects:
            if suspect in self._held:
                continue
            if len(self._held) >= self._capacity:
                self.flush()
            self._held[suspect] = None
            self._suspects += 1
            if not ripe:
                self._due = self._clock.elapsed_seconds + self._grace_seconds

    def flush(self) -> None:
        """Judges and settles what is held, after at most one wait.

        Raises:
            StopRequestedError: the run has to stop; what is not settled yet looks wrong to the next run, too.
        """
        if not self._held:
            return
        self._judge(self._suspects)
        wait = self._due - self._clock.elapsed_seconds
        if wait > 0:
            self._clock.wait(wait)
        for batch in batches(self._held, _BATCH):
            self._clock.checkpoint()
            confirmed = self._confirm(batch)
            if confirmed:
                self._settle(confirmed)
        self._held.clear()
