"""R2: how often something is tried again, and what ends the trying."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.spec import DeletionRetry, Retries, Retry
from stores.model.errors import StopRequestedError
from stores.waiting.clock import RunClock
from stores.waiting.retry import Retrier
from tests.support.runs import Log


class Unlucky:
    """Fails so many times."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "done"


def retrier(attempts: int, clock: RunClock, log: Log, delay: int = 0) -> Retrier:
    return Retrier(Retry(attempts=attempts, delay_seconds=delay), (ConnectionError,), clock, log, "store")


@given(attempts=st.integers(0, 10), failures=st.integers(0, 12))
def test_r2_as_many_attempts_as_the_policy_says(attempts: int, failures: int) -> None:
    log, work = Log(), Unlucky(failures, ConnectionError("secret"))
    if failures <= attempts:
        assert retrier(attempts, RunClock(600), log)(work) == "done"
    else:
        with pytest.raises(ConnectionError):
            retrier(attempts, RunClock(600), log)(work)
    assert work.calls == min(failures, attempts) + 1
    assert len(log.named("retry")) == min(failures, attempts)
    assert "secret" not in str(log.events)


def test_r2_other_errors_are_not_tried_again() -> None:
    work = Unlucky(5, ValueError())
    with pytest.raises(ValueError):
        retrier(3, RunClock(600), Log())(work)
    assert work.calls == 1


def test_r2_the_deadline_ends_the_trying() -> None:
    work = Unlucky(5, ConnectionError())
    with pytest.raises(StopRequestedError, match="DeadlineReached"):
        retrier(5, RunClock(3.2), Log(), delay=300)(work)  # 0.2 s and the margin
    assert work.calls == 1


def test_r2_a_request_to_stop_ends_the_trying() -> None:
    clock, work = RunClock(600), Unlucky(5, ConnectionError())
    clock.request_stop()
    with pytest.raises(StopRequestedError, match="Interrupted"):
        retrier(5, clock, Log(), delay=300)(work)
    assert work.calls == 1


def test_r2_the_defaults_are_the_required_ones() -> None:
    retries = Retries()
    assert retries.deletion == DeletionRetry(attempts=3, delay_seconds=10)
    assert retries.redis == retries.database == Retry(attempts=3, delay_seconds=30)
