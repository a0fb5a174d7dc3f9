"""The work queue's promises."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from controller.runtime.workqueue import WorkQueue
from tests.support.patience import PATIENCE_SECONDS


async def drained(queue: WorkQueue[str], process: Callable[[str], Awaitable[None]], done: asyncio.Event) -> None:
    """Run three workers until the test says it is done."""
    workers = [asyncio.create_task(queue.work(process)) for _ in range(3)]
    try:
        async with asyncio.timeout(10):
            await done.wait()
    finally:
        for worker in workers:
            worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker


class Time:
    now = 1024.0


def stopped_clock() -> Time:
    """The running loop's clock from now on: it goes when it is told to."""
    time = Time()
    asyncio.get_running_loop().time = lambda: time.now  # type: ignore[method-assign]
    return time


def test_what_is_added_several_times_is_done_once() -> None:
    async def scenario() -> list[str]:
        queue: WorkQueue[str] = WorkQueue()
        seen: list[str] = []
        done = asyncio.Event()

        async def process(key: str) -> None:
            seen.append(key)
            if key == "last":
                done.set()

        for key in ("a", "a", "b", "a", "last"):
            queue.add(key)
        await drained(queue, process, done)
        return seen

    assert asyncio.run(scenario()) == ["a", "b", "last"]


def test_a_key_is_never_with_two_workers_and_what_came_meanwhile_is_not_lost() -> None:
    async def scenario() -> tuple[int, int]:
        queue: WorkQueue[str] = WorkQueue()
        done = asyncio.Event()
        active = most = rounds = 0

        async def process(key: str) -> None:
            nonlocal active, most, rounds
            active += 1
            most = max(most, active)
            rounds += 1
            if rounds == 1:
                queue.add(key)
                queue.add(key)
            await asyncio.sleep(0)
            active -= 1
            if rounds == 2:
                done.set()

        queue.add("a")
        await drained(queue, process, done)
        return most, rounds

    assert asyncio.run(scenario()) == (1, 2)


def test_back_off_doubles_is_bounded_and_is_reset_by_success() -> None:
    async def scenario() -> tuple[list[float], float, float]:
        queue: WorkQueue[str] = WorkQueue()
        time = stopped_clock()
        delays = []
        for _ in range(12):
            delays.append(queue.retry("a"))
            time.now += delays[-1]
        asked = queue.retry("a", at_least_seconds=300)
        queue.forget("a")
        return delays, asked, queue.retry("a")

    delays, asked, first = asyncio.run(scenario())
    assert delays[:4] == [0.5, 1, 2, 4]
    assert delays[-1] == 60
    assert asked == 300
    assert first == delays[0]


def test_what_fails_before_its_back_off_is_over_waits_no_longer_for_that() -> None:
    async def scenario() -> tuple[list[float], float]:
        queue: WorkQueue[str] = WorkQueue()
        time = stopped_clock()
        first = queue.retry("a")
        time.now += first
        delays = [queue.retry("a")]
        for _ in range(10):  # something changes meanwhile, and is looked at at once
            time.now += 0.0625
            delays.append(queue.retry("a"))
        time.now += delays[-1]
        return delays, queue.retry("a")

    delays, then = asyncio.run(scenario())
    assert delays == [1 - n * 0.0625 for n in range(11)]
    assert then == 2


def test_a_later_delay_does_not_put_off_an_earlier_one() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        done = asyncio.Event()

        async def process(_key: str) -> None:
            done.set()

        queue.add_after("a", 0.01)
        queue.add_after("a", 3600)
        await drained(queue, process, done)

    asyncio.run(scenario())


def test_an_earlier_delay_takes_the_place_of_a_later_one() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        done = asyncio.Event()

        async def process(_key: str) -> None:
            done.set()

        queue.add_after("a", 3600)
        queue.add_after("a", 0.01)
        await drained(queue, process, done)

    asyncio.run(scenario())


def test_after_closing_the_key_in_hand_is_finished_and_no_other_is_begun() -> None:
    async def scenario() -> list[str]:
        queue: WorkQueue[str] = WorkQueue()
        finished: list[str] = []
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def process(key: str) -> None:
            begun.set()
            await go_on.wait()
            finished.append(key)

        # One worker has a key in hand, others wait for one, and the next key comes too late.
        queue.add("in hand")
        workers = [asyncio.create_task(queue.work(process)) for _ in range(4)]
        await begun.wait()
        queue.close()
        queue.add("too late")
        go_on.set()
        await asyncio.wait_for(asyncio.gather(*workers), timeout=PATIENCE_SECONDS)
        return finished

    assert asyncio.run(scenario()) == ["in hand"]


def test_it_tells_how_many_wait_and_for_how_long() -> None:
    async def scenario() -> list[float]:
        waits: list[float] = []
        queue: WorkQueue[str] = WorkQueue(waits.append)
        done = asyncio.Event()

        async def process(key: str) -> None:
            if key == "b":
                done.set()

        for key in ("a", "a", "b"):
            queue.add(key)
        queue.add_after("later", 3600)
        assert len(queue) == 2
        await drained(queue, process, done)
        assert len(queue) == 0
        return waits

    waits = asyncio.run(scenario())
    assert len(waits) == 2
    assert all(wait >= 0 for wait in waits)
