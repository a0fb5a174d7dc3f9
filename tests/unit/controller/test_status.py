"""The status as a function of what is observed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.pods import Problem
from controller.status import Observation, Readiness, condition, observe, stored_status
from policy.report import Outcome
from policy.status import Condition, ConditionStatus, ConditionType, RunRecord, SessionPolicyStatus
from tests.unit.controller.builders import START, policy_resource, run

READY = Readiness(ConditionStatus.TRUE, "CronJobApplied", "the CronJob matches the policy")
EMPTY = SessionPolicyStatus()


def after(before: SessionPolicyStatus, *finished: RunRecord, minute: int = 0, **seen: Any) -> SessionPolicyStatus:
    observation: dict[str, Any] = {
        "now": START + timedelta(minutes=minute),
        "generation": 1,
        "readiness": READY,
        "finished": finished,
    }
    return observe(before, Observation(**observation | seen))


def found(status: SessionPolicyStatus, kind: ConditionType) -> Condition:
    present = condition(status, kind)
    assert present is not None
    return present


def last_run_succeeded(status: SessionPolicyStatus) -> bool:
    return found(status, ConditionType.LAST_RUN_SUCCEEDED).status is ConditionStatus.TRUE


runs = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from(Outcome)), max_size=16, unique_by=lambda drawn: drawn[0]
).map(lambda drawn: [run(number, outcome) for number, outcome in drawn])


@given(runs, st.randoms())
def test_r1_2_any_order_and_repetition_of_observations_gives_the_same_history(
    runs: list[RunRecord], random: Any
) -> None:
    shuffled = runs + random.sample(runs, len(runs) // 2)
    random.shuffle(shuffled)
    status = EMPTY
    while shuffled:
        size = random.randint(1, 3)
        status = after(status, *shuffled[:size])
        shuffled = shuffled[size:]
    at_once = after(EMPTY, *runs)
    assert status.history == at_once.history == sorted(runs, key=lambda r: r.completion_time, reverse=True)[:10]
    assert status.last_run == at_once.last_run
    judged = condition(status, ConditionType.LAST_RUN_SUCCEEDED)
    expected = condition(at_once, ConditionType.LAST_RUN_SUCCEEDED)
    if any(record.outcome is not Outcome.SKIPPED for record in status.history):
        assert judged == expected
    if len(runs) <= 10:
        assert status.consecutive_failures == at_once.consecutive_failures
        assert status.last_success_time == at_once.last_success_time


@given(runs)
def test_consecutive_failures_are_those_since_the_last_success(runs: list[RunRecord]) -> None:
    status, failures = EMPTY, 0
    for record in sorted(runs, key=lambda r: r.completion_time):
        status = after(status, record)
        if record.outcome is Outcome.SUCCEEDED:
            failures = 0
        elif record.outcome is not Outcome.SKIPPED:
            failures += 1
        assert status.consecutive_failures == failures


@given(runs)
def test_observing_the_same_again_changes_nothing(runs: list[RunRecord]) -> None:
    once = after(EMPTY, *runs)
    assert after(once, *runs, minute=5) == once


def test_the_history_is_bounded_and_failures_are_counted_beyond_it() -> None:
    status = EMPTY
    for number in range(25):
        status = after(status, run(number, Outcome.FAILED))
    assert len(status.history) == 10
    assert status.consecutive_failures == 25
    assert after(status, run(3, Outcome.FAILED)).consecutive_failures == 25


def test_an_older_run_recorded_late_takes_its_place_and_is_not_the_last() -> None:
    status = after(after(EMPTY, run(5, Outcome.FAILED)), run(2))
    assert status.last_run == run(5, Outcome.FAILED)
    assert [record.job_name for record in status.history] == ["shop-5", "shop-2"]
    assert status.last_success_time == run(2).completion_time
    assert status.consecutive_failures == 1


@pytest.mark.parametrize(
    ("outcome", "well", "failures"),
    [(Outcome.SUCCEEDED, True, 0), (Outcome.DEGRADED, False, 1), (Outcome.FAILED, False, 1)],
)
def test_only_success_is_success(outcome: Outcome, well: bool, failures: int) -> None:
    status = after(EMPTY, run(1, outcome))
    assert last_run_succeeded(status) is well
    assert status.consecutive_failures == failures
    assert found(status, ConditionType.LAST_RUN_SUCCEEDED).reason == run(1, outcome).reason


def test_a_skipped_run_is_the_last_run_but_judges_nothing() -> None:
    failed = after(EMPTY, run(1, Outcome.FAILED))
    skipped = after(failed, run(2, Outcome.SKIPPED), minute=3)
    assert skipped.last_run == run(2, Outcome.SKIPPED)
    assert condition(skipped, ConditionType.LAST_RUN_SUCCEEDED) == condition(failed, ConditionType.LAST_RUN_SUCCEEDED)
    assert skipped.consecutive_failures == 1


def test_only_skipped_runs_leave_the_last_verdict_even_when_it_has_left_the_history() -> None:
    status = after(EMPTY, run(0))
    for number in range(1, 15):
        status = after(status, run(number, Outcome.SKIPPED))
    assert last_run_succeeded(status)
    assert status.last_success_time == run(0).completion_time


def test_a_bad_run_never_makes_ready_false_and_a_bad_spec_never_hides_the_last_run() -> None:
    failed = after(EMPTY, run(1, Outcome.FAILED))
    assert found(failed, ConditionType.READY).status is ConditionStatus.TRUE
    refused = after(failed, readiness=Readiness(ConditionStatus.FALSE, "InvalidSchedule", "expected 5 fields"))
    assert refused.last_run == failed.last_run
    assert condition(refused, ConditionType.LAST_RUN_SUCCEEDED) == condition(failed, ConditionType.LAST_RUN_SUCCEEDED)


def test_a_condition_keeps_its_transition_time_until_its_status_changes() -> None:
    first = after(EMPTY)
    suspended = after(first, minute=5, readiness=Readiness(ConditionStatus.TRUE, "Suspended", "no runs"))
    refused = after(suspended, minute=9, readiness=Readiness(ConditionStatus.FALSE, "InvalidSpec", "no"))
    times = [found(status, ConditionType.READY).last_transition_time for status in (first, suspended, refused)]
    assert times == [START, START, START + timedelta(minutes=9)]


def test_every_condition_is_of_the_generation_that_is_observed() -> None:
    status = after(after(EMPTY, run(1)), generation=9)
    assert status.observed_generation == 9
    assert {c.observed_generation for c in status.conditions} == {9}


def test_stalled_and_running_are_there_only_while_they_hold() -> None:
    active = after(EMPTY, running="shop-1", stalled=Problem("Unschedulable", "no node"))
    assert {c.type for c in active.conditions} == {ConditionType.READY, ConditionType.STALLED, ConditionType.RUNNING}
    assert {c.type for c in after(active).conditions} == {ConditionType.READY}


def test_a_handled_request_is_remembered() -> None:
    status = after(EMPTY, handled_run_request="token")
    assert after(status).last_handled_run_request == "token"


def test_the_last_schedule_time_survives_a_cron_job_that_was_made_anew() -> None:
    status = after(EMPTY, last_schedule_time=START)
    assert after(status, last_schedule_time=None).last_schedule_time == START


def test_a_status_reads_back_as_it_was_written() -> None:
    status = after(EMPTY, run(1), run(2, Outcome.FAILED), running="shop-3", next_schedule_time=START)
    assert stored_status({**policy_resource(), "status": status.to_json_object()}) == status


@pytest.mark.parametrize(
    "garbage", [{"history": "x"}, {"history": [{"jobUID": "x"}]}, {"lastRun": 1}, {"unknown": 1}, {"conditions": [1]}]
)
def test_a_field_that_does_not_parse_costs_no_other_field(garbage: dict[str, Any]) -> None:
    status = SessionPolicyStatus(last_handled_run_request="token", consecutive_failures=3)
    read = stored_status({**policy_resource(), "status": status.to_json_object() | garbage})
    assert (read.last_handled_run_request, read.consecutive_failures) == ("token", 3)


def test_a_policy_without_a_status_has_an_empty_one() -> None:
    assert stored_status(policy_resource()) == EMPTY
