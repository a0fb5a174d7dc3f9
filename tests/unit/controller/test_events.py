"""Events tell what changed, once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from controller.runs.missed_schedules import UnfinishedRun
from controller.runs.pods import Problem
from controller.status.events import PolicyEvent, Severity, build_event, events_between
from controller.status.policy_status import Observation, Readiness, next_status
from policy.report import Outcome
from policy.status import ConditionStatus, RunRecord, SessionPolicyStatus
from tests.unit.controller.builders import POLICY_UID, START, policy_resource, run

READY = Readiness(ConditionStatus.TRUE, "CronJobApplied", "the CronJob matches the policy")
BEGINNING = Readiness(ConditionStatus.UNKNOWN, "Progressing", "the CronJob is being made")
SUSPENDED = Readiness(ConditionStatus.TRUE, "Suspended", "no runs are scheduled")
REFUSED = Readiness(ConditionStatus.FALSE, "InvalidSchedule", "spec.schedule: expected exactly 5 fields")
EMPTY = SessionPolicyStatus()


def after(before: SessionPolicyStatus, readiness: Readiness = READY, **seen: Any) -> SessionPolicyStatus:
    return next_status(before, Observation(now=START, generation=1, readiness=readiness, **seen))


def told(before: SessionPolicyStatus, now: SessionPolicyStatus) -> list[tuple[str, str]]:
    return [(event.severity.value, event.reason) for event in events_between(before, now)]


def test_a_plain_beginning_is_told_by_the_cron_job_s_creation_alone() -> None:
    assert told(EMPTY, after(EMPTY, BEGINNING)) == []
    assert told(after(EMPTY, BEGINNING), after(EMPTY)) == []


def test_every_run_is_told_once_and_in_order() -> None:
    status = after(EMPTY, finished=(run(2, Outcome.FAILED), run(1), run(3, Outcome.DEGRADED), run(4, Outcome.SKIPPED)))
    assert told(after(EMPTY), status) == [
        ("Normal", "RunSucceeded"),
        ("Warning", "RunFailed"),
        ("Warning", "RunDegraded"),
        ("Normal", "RunSkipped"),
    ]
    assert told(status, after(status, finished=(run(1),))) == []


def test_r1_3_a_run_s_trace_is_told_with_it() -> None:
    well, badly = (
        run(number, outcome).model_copy(update={"trace_id": f"{number}" * 32})
        for number, outcome in ((1, Outcome.SUCCEEDED), (2, Outcome.FAILED))
    )
    events = events_between(after(EMPTY), after(EMPTY, finished=(well, badly, run(3))))
    assert [event.message for event in events] == [
        f"Job shop-1: run 1 (Completed, trace {'1' * 32})",
        f"Job shop-2: run 2 (SomethingWrong, trace {'2' * 32})",
        "Job shop-3: run 3 (Completed)",
    ]
    assert [event.trace_id for event in events] == ["1" * 32, "2" * 32, None]


def test_a_refused_schedule_and_its_recovery_are_told() -> None:
    good, bad = after(EMPTY), after(after(EMPTY), REFUSED, stalled=Problem(REFUSED.reason, REFUSED.message))
    assert told(good, bad) == [("Warning", "InvalidSchedule")]
    assert told(bad, after(bad)) == [("Normal", "CronJobApplied")]


def test_suspending_and_resuming_are_told() -> None:
    good, suspended = after(EMPTY), after(after(EMPTY), SUSPENDED)
    assert told(good, suspended) == [("Normal", "Suspended")]
    assert told(suspended, good) == [("Normal", "CronJobApplied")]


def test_a_stalled_run_is_told_when_it_begins_or_changes_its_reason() -> None:
    good = after(EMPTY)
    stalled = after(good, stalled=Problem("ImagePullBackOff", "cannot be pulled"))
    assert told(good, stalled) == [("Warning", "ImagePullBackOff")]
    assert told(stalled, after(stalled, stalled=Problem("ImagePullBackOff", "another Pod"))) == []
    assert told(stalled, after(stalled, stalled=Problem("Unschedulable", "no node"))) == [("Warning", "Unschedulable")]


def missed(before: SessionPolicyStatus, count: int = 1, **seen: Any) -> SessionPolicyStatus:
    times = tuple(START - timedelta(minutes=number) for number in range(count))
    return after(before, newly_missed=times, cron_job_name="shop", **seen)


def test_missed_runs_are_told_at_first_then_at_ten_then_at_a_hundred() -> None:
    status, heard = after(EMPTY), 0
    for _ in range(300):
        now = missed(status)
        heard += told(status, now) == [("Warning", "MissedSchedule")]
        status = now
    assert heard == 3
    started = after(status, last_schedule_time=START + timedelta(hours=1))
    assert told(status, started) == []
    assert told(started, missed(started)) == [("Warning", "MissedSchedule")]


def test_a_run_that_takes_longer_than_the_interval_is_told_as_such() -> None:
    good = after(EMPTY, running="shop-1", scheduled_run=UnfinishedRun("shop-1", START - timedelta(hours=2)))
    (event,) = events_between(
        good, missed(good, running="shop-1", scheduled_run=UnfinishedRun("shop-1", START - timedelta(hours=2)))
    )
    assert event.reason == "MissedSchedule"
    assert "Job shop-1 had not finished" in event.message
    long = run(5).model_copy(update={"start_time": START - timedelta(hours=2)})
    (event,) = (e for e in events_between(good, missed(good, finished=(long,))) if e.reason == "MissedSchedule")
    assert "Job shop-5 had not finished" in event.message


def test_a_run_request_is_told() -> None:
    assert told(after(EMPTY), after(EMPTY, handled_run_request="now")) == [("Normal", "RunRequested")]


def test_the_event_points_at_the_policy_and_its_name_is_valid_for_the_longest_one() -> None:
    event = build_event(
        policy_resource("p" * 253), PolicyEvent(Severity.WARNING, "RunFailed", "why"), START + timedelta(hours=1)
    )
    assert event["involvedObject"]["uid"] == POLICY_UID
    assert event["involvedObject"]["name"] == "p" * 253
    assert len(event["metadata"]["name"]) <= 253
    assert event["lastTimestamp"] == "2026-03-01T11:50:00Z"


def test_the_end_of_a_job_has_the_same_name_from_every_controller_and_another_than_any_else() -> None:
    def names(policy: dict[str, Any], *finished: RunRecord) -> list[str]:
        found = events_between(after(EMPTY), after(EMPTY, finished=finished))
        return [build_event(policy, event, START)["metadata"]["name"] for event in found]

    both = names(policy_resource(), run(1), run(2))
    assert len(set(both)) == 2
    assert names(policy_resource(), run(2)) == both[1:]
    other = policy_resource()
    other["metadata"] = other["metadata"] | {"uid": "made-anew"}
    assert names(other, run(2)) != both[1:]


def test_what_may_be_told_again_has_a_name_of_its_own_each_time() -> None:
    event = PolicyEvent(Severity.NORMAL, "CronJobUpdated", "again")
    names = {build_event(policy_resource(), event, START)["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5
