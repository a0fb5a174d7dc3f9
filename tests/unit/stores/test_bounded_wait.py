"""Several calls at once: what each came to, and none that hangs is waited for longer than the bound."""

from __future__ import annotations

import threading
import time

from stores.waiting.bounded_wait import BoundedCalls, call_all, has_succeeded
from tests.support.patience import PATIENCE_SECONDS


def test_each_call_comes_to_what_it_returned_or_raised() -> None:
    def fail() -> str:
        raise LookupError("the store is gone")

    good, bad = call_all([lambda: "here", fail], "test", PATIENCE_SECONDS)
    assert has_succeeded(good)
    assert good.result() == "here"
    assert not has_succeeded(bad)
    assert isinstance(bad.exception(), LookupError)


def test_a_call_that_hangs_is_left_behind_in_a_thread_that_does_not_hold_up_the_end() -> None:
    go_on = threading.Event()
    began = time.monotonic()
    hanging, good = call_all([lambda: go_on.wait(PATIENCE_SECONDS), lambda: True], "test", 0.2)
    assert time.monotonic() - began < PATIENCE_SECONDS / 2
    assert not hanging.done()
    assert not has_succeeded(hanging)
    assert has_succeeded(good)
    (left,) = [thread for thread in threading.enumerate() if thread.name == "test-0"]
    assert left.daemon
    go_on.set()
    left.join(PATIENCE_SECONDS)
    assert has_succeeded(hanging)


def test_the_calls_run_while_the_caller_does_something_else_and_the_time_counts_from_their_start() -> None:
    started, go_on = threading.Event(), threading.Event()

    def work() -> bool:
        started.set()
        return go_on.wait(PATIENCE_SECONDS)

    calls = BoundedCalls([work], "test", 0.1)
    assert started.wait(PATIENCE_SECONDS)
    time.sleep(0.1)
    began = time.monotonic()
    (future,) = calls.wait()
    assert time.monotonic() - began < PATIENCE_SECONDS / 2
    assert not future.done()
    go_on.set()
