"""R6: how long what remains would take, and how people are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.report import MAX_COUNT
from stores.waiting.clock import RunClock
from stores.waiting.estimate import DeletingTime, in_words


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> RunClock:
    """A clock that stands still; a test moves it by hand."""
    monkeypatch.setattr(RunClock, "elapsed_seconds", 0.0)
    return RunClock(600)


def test_r6_the_pace_is_that_of_the_steps_that_delete(clock: RunClock, monkeypatch: pytest.MonkeyPatch) -> None:
    def at(seconds: float) -> None:
        monkeypatch.setattr(RunClock, "elapsed_seconds", seconds)

    pace = DeletingTime(clock)
    at(100)
    assert pace.seconds_for(50, 50) == 1  # nothing was measured: it is soon done
    with pace.running():
        at(110)
        assert pace.seconds == 10  # also while it goes on
    at(500)
    with pytest.raises(ValueError, match="stop"), pace.running():
        at(520)
        raise ValueError("stop")
    at(600)
    assert pace.seconds == 30
    assert pace.seconds_for(remaining=500, deleted=1000) == 15
    assert pace.seconds_for(remaining=1, deleted=7) == 5  # 4.3, in whole seconds
    assert pace.seconds_for(remaining=0, deleted=1000) is None
    assert pace.seconds_for(remaining=500, deleted=0) is None


@given(st.integers(0, MAX_COUNT), st.integers(0, MAX_COUNT))
def test_r6_an_estimate_is_a_count_or_nothing(remaining: int, deleted: int) -> None:
    pace = DeletingTime(RunClock(600))
    with pace.running():
        found = pace.seconds_for(remaining, deleted)
    assert (found is None) == (not remaining or not deleted)
    assert found is None or 1 <= found <= MAX_COUNT


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "about 1 second"),
        (2, "about 2 seconds"),
        (119, "about 119 seconds"),
        (120, "about 2 minutes"),
        (239, "about 4 minutes"),
        (2 * 3600 - 1, "about 120 minutes"),
        (2 * 3600, "about 2 hours"),
        (2 * 86_400, "about 2 days"),
        (10 * 86_400 + 50_000, "about 11 days"),
    ],
)
def test_r6_an_estimate_in_words(seconds: int, words: str) -> None:
    assert in_words(seconds) == words
