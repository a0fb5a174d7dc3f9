"""The control plane's clock, whatever this node's does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controller.api.clock import ServerClock

HERE = datetime(2031, 1, 1, tzinfo=UTC)
THERE = datetime(2026, 3, 1, 10, 50, tzinfo=UTC)
DATE = "Sun, 01 Mar 2026 10:50:00 GMT"


class Ticks:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_until_the_server_answers_this_machine_s_clock_is_all_there_is() -> None:
    assert ServerClock(lambda: HERE).now() == HERE


def test_the_server_s_time_goes_on_evenly_however_wrong_this_machine_s_clock_is() -> None:
    ticks = Ticks()
    clock = ServerClock(lambda: HERE, ticks)
    clock.read(DATE)
    ticks.seconds += 90
    assert clock.now() == THERE + timedelta(seconds=90)


@pytest.mark.parametrize("date", ["", "yesterday", "Sun, 99 Mar 2026 10:50:00 GMT", "Sun, 01 Mar 2026 10:50:00 -0000"])
def test_what_is_no_date_changes_nothing(date: str) -> None:
    ticks = Ticks()
    clock = ServerClock(lambda: HERE, ticks)
    clock.read(DATE)
    clock.read(date)
    assert clock.now() == THERE
