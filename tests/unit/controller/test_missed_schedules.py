"""Runs that were due and were not started: never claimed without cause."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.runs.missed_schedules import check_schedule
from policy.status import SessionPolicyStatus
from tests.unit.controller.builders import timestamp, typed_policy

MADE = datetime(2026, 3, 1, 10, 20, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NEVER_SEEN = SessionPolicyStatus()


def at(hour: int, minute: int = 0, day: int = 1) -> datetime:
    return datetime(2026, 3, day, hour, minute, tzinfo=UTC)


def cron_job(started: datetime | None = None, changed: datetime | None = None, made: datetime = MADE) -> dict[str, Any]:
    fields = [
        {"time": timestamp(changed or made), "fieldsV1": {"f:spec": {}}},
        {"time": "2099-01-01T00:00:00Z", "fieldsV1": {"f:status": {}}, "subresource": "status"},
    ]
    return {
        "metadata": {"name": "shop", "creationTimestamp": timestamp(made), "managedFields": fields},
        "status": {"lastScheduleTime": timestamp(started)} if started else {},
    }


def missed(
    now: datetime, found: dict[str, Any], before: SessionPolicyStatus = NEVER_SEEN, **spec: Any
) -> tuple[datetime, ...]:
    policy = typed_policy(**{"schedule": "50 * * * *"} | spec)
    return check_schedule(policy.spec, found, before, now).newly_missed


def test_r1_2_a_run_is_missed_once_its_starting_deadline_is_over() -> None:
    assert missed(at(10, 55), cron_job()) == ()
    assert missed(at(10, 56), cron_job()) == (at(10, 50),)


def test_a_run_that_was_started_is_not_missed_nor_any_before_it() -> None:
    assert missed(at(15), cron_job(started=at(14, 50))) == ()


def test_all_since_the_last_start_are_missed_newest_first() -> None:
    assert missed(at(13), cron_job(started=at(10, 50))) == (at(12, 50), at(11, 50))


def test_what_was_counted_is_not_counted_again() -> None:
    before = SessionPolicyStatus(missed_schedules=1, last_missed_schedule_time=at(11, 50))
    assert missed(at(13), cron_job(started=at(10, 50)), before) == (at(12, 50),)


def test_a_policy_just_made_resumed_or_changed_has_missed_nothing() -> None:
    assert missed(at(10, 30), cron_job()) == ()
    # Suspended for hours: the CronJob was written when it was resumed. So it is after each change of the schedule.
    assert missed(at(15, 10), cron_job(started=at(10, 50), changed=at(15))) == ()
    assert missed(at(16), cron_job(started=at(10, 50), changed=at(15))) == (at(15, 50),)


def test_a_suspended_policy_misses_nothing() -> None:
    assert missed(at(20), cron_job(), suspend=True) == ()


def test_a_cron_job_that_was_made_anew_has_missed_nothing_before() -> None:
    before = SessionPolicyStatus(last_schedule_time=at(10, 50))
    assert missed(at(15), cron_job(made=at(14, 55)), before) == ()


@pytest.mark.parametrize("schedule", ["@hourly", "nonsense", "0 0 */2 * 1", "0 0 1 * */2", "0 0 31 2 *"])
def test_of_a_schedule_that_may_be_read_in_two_ways_nothing_is_claimed(schedule: str) -> None:
    assert missed(at(10, 0, day=20), cron_job(), schedule=schedule) == ()


def test_days_of_the_month_and_of_the_week_are_either_of_them() -> None:
    # The 1st of March 2026 is a Sunday; the 3rd is a Tuesday.
    due = missed(at(10, 0, day=9), cron_job(), schedule="0 5 3 * 1")
    assert due == (at(5, 0, day=9), at(5, 0, day=3), at(5, 0, day=2))


@pytest.mark.parametrize(
    ("zone", "schedule", "night", "known"),
    [
        # Clocks go from 2 to 3, or from 3 to 2: what is due at half past two comes once, twice or not at all.
        ("Europe/Berlin", "30 2 * * *", datetime(2026, 3, 29, tzinfo=UTC), 2),
        ("Europe/Berlin", "30 2 * * *", datetime(2026, 10, 25, tzinfo=UTC), 2),
        ("Europe/Berlin", "0 0 * * *", datetime(2026, 3, 29, tzinfo=UTC), 3),
        ("America/New_York", "30 1 * * *", datetime(2026, 11, 1, tzinfo=UTC), 2),
        ("Australia/Lord_Howe", "45 1 * * *", datetime(2026, 4, 5, tzinfo=UTC), 2),
    ],
)
def test_in_the_night_when_clocks_change_only_what_is_certain_is_claimed(
    zone: str, schedule: str, night: datetime, known: int
) -> None:
    made = night - timedelta(days=1, hours=12)
    found = missed(made + timedelta(days=3), cron_job(made=made), schedule=schedule, timeZone=zone)
    assert len(found) == known


def test_after_years_the_work_is_bounded_and_the_newest_are_known() -> None:
    now = MADE + timedelta(days=3650)
    found = missed(now, cron_job(), schedule="* * * * *")
    assert len(found) == 100
    assert found[0] == now - 6 * MINUTE


def test_a_start_that_is_yet_to_come_is_a_problem_of_its_own() -> None:
    seen = check_schedule(typed_policy().spec, cron_job(started=at(10, 50, day=20)), NEVER_SEEN, at(12))
    assert seen.newly_missed == ()
    assert seen.problem is not None
    assert (seen.problem.reason, "kubectl delete cronjob shop" in seen.problem.message) == (
        "LastScheduleInFuture",
        True,
    )


def test_a_watermark_from_a_clock_that_was_ahead_hides_nothing() -> None:
    before = SessionPolicyStatus(missed_schedules=1, last_missed_schedule_time=at(10, 50, day=20))
    assert missed(at(11), cron_job(), before) == (at(10, 50),)


minutes = st.sampled_from(["*", "*/2", "*/5", "*/15", "0", "50", "10,40"])
hours = st.sampled_from(["*", "*/3", "4"])


@given(minutes, hours, st.integers(0, 3000), st.lists(st.integers(1, 200), max_size=30))
def test_looked_at_ever_so_often_each_due_time_is_missed_once(
    minute: str, hour: str, started: int, pauses: list[int]
) -> None:
    policy = typed_policy(schedule=f"{minute} {hour} * * *")
    begin = MADE + started * MINUTE
    now, counted = begin, []
    status = SessionPolicyStatus()
    for pause in pauses:
        now += pause * MINUTE
        found = check_schedule(policy.spec, cron_job(made=begin), status, now).newly_missed
        counted += list(reversed(found))
        status = SessionPolicyStatus(last_missed_schedule_time=found[0] if found else status.last_missed_schedule_time)
        assert len(found) < 100 or minute in ("*", "*/2")
    if all(pause < 90 for pause in pauses):
        at_once = {
            begin + n * MINUTE
            for n in range(1, int((now - begin) / MINUTE) - 5)
            if matches(minute, (begin + n * MINUTE).minute) and matches(hour, (begin + n * MINUTE).hour)
        }
        assert counted == sorted(at_once)


def matches(field: str, value: int) -> bool:
    """A reading of these few fields that shares nothing with the library's."""
    if field.startswith("*"):
        return value % int(field[2:] or 1) == 0
    return str(value) in field.split(",")


@pytest.mark.parametrize(
    ("schedule", "now", "started", "expected"),
    [
        # All is well: a moment after the next run is due.
        ("50 * * * *", at(10, 55), at(10, 50), at(11, 50, 1)),
        # One is due and not started yet: soon, and when its deadline is over.
        ("50 * * * *", at(10, 50), at(9, 50), at(10, 50)),
        ("50 * * * *", at(10, 51), at(9, 50), at(10, 55)),
        # Due every minute: once a minute, whatever is missed.
        ("* * * * *", at(10, 51) + timedelta(seconds=20), at(10, 40), at(10, 52)),
        ("*/5 * * * *", at(10, 51), at(10, 45), at(10, 55)),
    ],
)
def test_it_looks_again_when_there_is_something_to_see(
    schedule: str, now: datetime, started: datetime, expected: datetime
) -> None:
    found = check_schedule(typed_policy(schedule=schedule).spec, cron_job(started=started), NEVER_SEEN, now)
    assert found.look_again_seconds is not None
    assert timedelta(0) <= now + timedelta(seconds=found.look_again_seconds) - expected <= MINUTE


@given(st.sampled_from(["* * * * *", "*/2 * * * *", "*/5 * * * *", "*/7 * * * *"]), st.integers(0, 3600))
def test_with_frequent_runs_there_is_at_most_one_look_for_each(schedule: str, second: int) -> None:
    spec = typed_policy(schedule=schedule).spec
    now, looks = at(12) + timedelta(seconds=second), 0
    end = now + timedelta(hours=1)
    status = SessionPolicyStatus()
    while now < end:
        seen = check_schedule(spec, cron_job(), status, now)
        assert seen.look_again_seconds is not None
        assert seen.look_again_seconds >= 1
        if seen.newly_missed:
            status = SessionPolicyStatus(last_missed_schedule_time=seen.newly_missed[0])
        now += timedelta(seconds=seen.look_again_seconds)
        looks += 1
    due = {"* * * * *": 60, "*/2 * * * *": 30, "*/5 * * * *": 12, "*/7 * * * *": 9}[schedule]
    # With runs farther apart than the deadline, each that is missed is looked at twice.
    assert looks <= due + 2 if schedule != "*/7 * * * *" else looks <= 2 * due + 2
