"""Pages asked for in a second thread: the same pages, the same errors, and no more of them in memory than needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.waiting.background import BackgroundCall, Prefetch, prefetched, with_lookups
from tests.support.patience import PATIENCE_SECONDS

PLACE: ContextVar[str] = ContextVar("place")


@given(st.lists(st.integers() | st.none()))
def test_every_page_comes_once_and_in_order(pages: list[int | None]) -> None:
    assert list(prefetched(iter(pages))) == pages
    assert list(with_lookups(pages, lambda page: (page, "seen"))) == [(page, (page, "seen")) for page in pages]


def test_one_page_is_asked_for_while_the_one_before_is_worked_on_and_no_more() -> None:
    asked: list[int] = []
    second = threading.Event()

    def pages() -> Iterator[int]:
        for number in range(5):
            asked.append(number)
            if number == 1:
                second.set()
            yield number

    walk = prefetched(pages())
    assert next(walk) == 0
    assert second.wait(PATIENCE_SECONDS)
    assert asked == [0, 1]


def test_a_look_up_runs_while_the_next_page_is_asked_for() -> None:
    looking = threading.Event()

    def pages() -> Iterator[int]:
        yield 0
        assert looking.wait(PATIENCE_SECONDS)  # the first page is looked up before the second was there
        yield 1

    def look_up(page: int) -> int:
        looking.set()
        return page * 2

    assert list(with_lookups(pages(), look_up)) == [(0, 0), (1, 2)]


def test_what_goes_wrong_in_the_second_thread_is_raised_where_the_page_is_wanted() -> None:
    def pages() -> Iterator[int]:
        yield 0
        raise LookupError("the store is gone")

    def look_up(page: int) -> int:
        raise LookupError("the store is gone")

    walk = prefetched(pages())
    assert next(walk) == 0
    with pytest.raises(LookupError, match="the store is gone"):
        next(walk)
    with pytest.raises(LookupError, match="the store is gone"):
        list(with_lookups([1, 2], look_up))


def test_whoever_stops_early_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    walk = prefetched(iter(range(100)))
    assert next(walk) == 0
    (thread,) = set(threading.enumerate()) - before
    walk.close()  # type: ignore[attr-defined]
    thread.join(10)
    assert not thread.is_alive()


def test_the_second_thread_knows_what_the_first_was_told() -> None:
    PLACE.set("here")
    assert list(prefetched(PLACE.get() for _ in range(2))) == ["here", "here"]


@given(st.lists(st.integers(), max_size=20), st.integers(1, 4))
def test_what_is_ready_is_handed_out_once_and_in_order(pages: list[int], most: int) -> None:
    with Prefetch(iter(pages), most) as prefetch:
        found = [*prefetch.ready()]
        found += prefetch
        assert found == pages
        assert [*prefetch.ready(), *prefetch] == []


def test_nothing_is_waited_for_that_is_not_ready_and_only_so_many_are_asked_for() -> None:
    asked: list[int] = []
    go_on, done = threading.Event(), threading.Event()

    def pages() -> Iterator[int]:
        for number in range(10):
            asked.append(number)
            if number == 2:
                done.set()
                assert go_on.wait(PATIENCE_SECONDS)
            yield number

    with Prefetch(pages(), 3) as prefetch:
        assert done.wait(PATIENCE_SECONDS)
        assert next(prefetch.ready()) == 0
        assert list(prefetch.ready()) == [1]
        assert asked == [0, 1, 2]
        go_on.set()
        assert list(prefetch) == list(range(2, 10))


def test_what_goes_wrong_is_raised_by_whoever_asks_what_is_ready() -> None:
    failed = threading.Event()

    def pages() -> Iterator[int]:
        yield 0
        failed.set()
        raise LookupError("the store is gone")

    with Prefetch(pages(), 2) as prefetch:
        assert next(iter(prefetch)) == 0
        assert failed.wait(PATIENCE_SECONDS)
        with pytest.raises(LookupError, match="the store is gone"):
            while True:
                list(prefetch.ready())


def test_pages_that_nobody_will_take_are_not_asked_for() -> None:
    asked: list[int] = []
    first, go_on = threading.Event(), threading.Event()

    def pages() -> Iterator[int]:
        for number in range(10):
            asked.append(number)
            first.set()
            assert go_on.wait(PATIENCE_SECONDS)
            yield number

    before = set(threading.enumerate())
    with Prefetch(pages(), 5):
        assert first.wait(PATIENCE_SECONDS)
        (thread,) = set(threading.enumerate()) - before
    go_on.set()
    thread.join(10)
    assert not thread.is_alive()
    assert asked == [0]


def test_what_is_done_aside_is_done_in_order_and_by_the_end() -> None:
    done: list[int] = []
    with BackgroundCall() as background:
        for number in range(5):
            background.start(lambda number=number: done.append(number))  # type: ignore[misc]
            assert done[:number] == list(range(number))
    assert done == [0, 1, 2, 3, 4]


def test_what_went_wrong_aside_is_raised_before_anything_else_is_begun() -> None:
    done: list[str] = []

    def fail() -> None:
        raise ValueError("aside")

    with pytest.raises(ValueError, match="aside"), BackgroundCall() as background:
        background.start(fail)
        background.start(lambda: done.append("later"))
    with pytest.raises(ValueError, match="aside"), BackgroundCall() as background:
        background.start(fail)
    assert not done


def test_what_was_begun_aside_is_done_whatever_happens_meanwhile() -> None:
    go_on, done = threading.Event(), threading.Event()

    def slow() -> None:
        assert go_on.wait(PATIENCE_SECONDS)
        done.set()

    def interrupted() -> None:
        with BackgroundCall() as background:
            background.start(slow)
            threading.Timer(0.01, go_on.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done.is_set()


def test_who_works_aside_knows_what_the_first_thread_knows() -> None:
    PLACE.set("here")
    seen: list[str] = []
    with BackgroundCall() as background:
        background.start(lambda: seen.append(PLACE.get()))
    assert seen == ["here"]
