"""The next run, for display."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from controller.runs.schedule import next_run
from tests.unit.controller.builders import typed_policy

NOW = datetime(2026, 3, 28, 22, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "zone", "expected"),
    [
        ("50 * * * *", "Etc/UTC", datetime(2026, 3, 28, 22, 50, tzinfo=UTC)),
        ("0 0 * * *", "Europe/Berlin", datetime(2026, 3, 28, 23, 0, tzinfo=UTC)),
        # The night of the 29th has no half past two in Berlin; midnight of the 30th is an hour earlier in UTC.
        ("0 0 30 * *", "Europe/Berlin", datetime(2026, 3, 29, 22, 0, tzinfo=UTC)),
    ],
)
def test_r1_2_the_next_run_is_in_the_policy_s_zone(schedule: str, zone: str, expected: datetime) -> None:
    assert next_run(typed_policy(schedule=schedule, timeZone=zone).spec, NOW) == expected


@pytest.mark.parametrize(
    "spec",
    [
        {"suspend": True},
        {"schedule": "not a schedule"},
        {"schedule": "61 * * * *"},
        {"schedule": "0 0 31 2 *"},
        {"schedule": "* * * * * *"},
        {"timeZone": "Nowhere/City"},
        {"timeZone": "../../etc/passwd"},
    ],
)
def test_there_is_none_when_suspended_or_unreadable(spec: dict[str, Any]) -> None:
    assert next_run(typed_policy(**spec).spec, NOW) is None
