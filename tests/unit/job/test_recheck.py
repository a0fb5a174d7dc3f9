"""Seen twice, the grace apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.steps.sync.recheck import Recheck
from stores.model.batches import batches, batches_by_weight
from stores.model.errors import StopRequestedError
from stores.waiting.clock import RunClock


class Clock(RunClock):
    """Time passes only when somebody waits."""

    def __init__(self) -> None:
        super().__init__(3600)
        self.now = 0.0
        self.waits: list[float] = []

    @property
    def elapsed_seconds(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Watch:
    """A second look that records what it does."""

    def __init__(self, clock: RunClock, *, capacity: int = 100, judge: Callable[[int], None] | None = None) -> None:
        self.innocent: set[int] = set()
        self.settled: list[int] = []
        self.judged: list[int] = []
        self.look = Recheck[int](
            clock,
            5,
            judge=judge or self.judged.append,
            confirm=self._confirm,
            settle=self.settled.extend,
            capacity=capacity,
        )

    def _confirm(self, suspects: Sequence[int]) -> Sequence[int]:
        return [s for s in suspects if s not in self.innocent]


def test_a_suspect_is_settled_only_after_the_grace_and_only_if_it_looks_the_same() -> None:
    clock = Clock()
    watch = Watch(clock)
    watch.look.add([1, 2, 3])
    clock.now += 2
    watch.look.add([3, 4])
    assert watch.settled == []
    watch.innocent = {2}
    watch.look.flush()
    assert watch.settled == [1, 3, 4]
    assert clock.waits == [5]
    assert watch.judged == [4]


def test_the_wait_is_what_is_left_of_the_grace_of_the_newest() -> None:
    clock = Clock()
    watch = Watch(clock)
    watch.look.add([1])
    clock.now += 4
    watch.look.flush()
    assert clock.waits == [1]


def test_nothing_held_or_only_ripe_means_no_wait() -> None:
    clock = Clock()
    watch = Watch(clock)
    watch.look.flush()
    watch.look.add([1, 2], grace_passed=True)
    watch.look.flush()
    assert (clock.waits, watch.settled, watch.judged) == ([], [1, 2], [2])


def test_a_full_house_is_settled_and_the_judge_hears_of_all_so_far() -> None:
    clock = Clock()
    watch = Watch(clock, capacity=10)
    watch.look.add(range(25))
    watch.look.flush()
    assert watch.settled == list(range(25))
    assert watch.judged == [10, 20, 25]
    assert clock.waits == [5, 5, 5]


def test_when_the_judge_objects_nothing_is_settled() -> None:
    def object_to(_: int) -> None:
        raise RuntimeError

    watch = Watch(Clock(), judge=object_to)
    watch.look.add([1], grace_passed=True)
    with pytest.raises(RuntimeError):
        watch.look.flush()
    assert watch.settled == []


def test_a_request_to_stop_is_heeded_before_the_next_batch() -> None:
    clock = Clock()
    watch = Watch(clock)
    watch.look.add([1], grace_passed=True)
    clock.request_stop()
    with pytest.raises(StopRequestedError):
        watch.look.flush()
    assert watch.settled == []


@given(st.lists(st.integers(0, 20)), st.integers(1, 30))
def test_batches_are_the_items_in_order_and_none_is_too_large(weights: list[int], most: int) -> None:
    cut = list(batches_by_weight(weights, lambda w: w, most))
    assert [w for batch in cut for w in batch] == weights
    assert all(batch for batch in cut)
    assert all(sum(batch) <= most or len(batch) == 1 for batch in cut)
    assert [len(b) for b in batches(weights, most)] == [most] * (len(weights) // most) + (
        [len(weights) % most] if len(weights) % most else []
    )
