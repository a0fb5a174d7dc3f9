"""The status as a function of what is observed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.runs.missed_schedules import UnfinishedRun
from controller.runs.pods import Problem
from controller.status.policy_status import (
    Observation,
    Readiness,
    condition,
    next_status,
    stall_of_job,
    stored_status,
)
from policy.report import Outcome, SessionCounts
from policy.status import Condition, ConditionStatus, ConditionType, RunRecord, SessionPolicyStatus
from tests.unit.controller.builders import START, policy_resource, run

READY = Readiness(ConditionStatus.TRUE, "CronJobApplied", "the CronJob matches the policy")
EMPTY = SessionPolicyStatus()
NOW = START + timedelta(hours=1)


def after(before: SessionPolicyStatus, *finished: RunRecord, minute: int = 0, **seen: Any) -> SessionPolicyStatus:
    observation: dict[str, Any] = {
        "now": NOW + timedelta(minutes=minute),
        "generation": 1,
        "readiness": READY,
        "finished": finished,
    }
    return next_status(before, Observation(**observation | seen))


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
    assert times == [NOW, NOW, NOW + timedelta(minutes=9)]


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


def totals(status: SessionPolicyStatus) -> dict[str, int]:
    return status.totals.model_dump()


def deleting(number: int, deleted: int, **changed: Any) -> RunRecord:
    return run(number).model_copy(update={"sessions": SessionCounts(deleted=deleted), **changed})


@given(runs, st.randoms())
def test_totals_do_not_depend_on_the_order_repetition_or_restarts_of_observations(
    runs: list[RunRecord], random: Any
) -> None:
    # As long as a Job is observed before ten newer ones are: those it is kept among.
    runs = [r.model_copy(update={"sessions": SessionCounts(deleted=n)}) for n, r in enumerate(runs[:10])]
    shuffled = runs + random.sample(runs, len(runs) // 2)
    random.shuffle(shuffled)
    status = EMPTY
    while shuffled:
        size = random.randint(1, 3)
        grown = after(status, *shuffled[:size])
        assert all(
            grown_to >= was for grown_to, was in zip(totals(grown).values(), totals(status).values(), strict=True)
        )
        status = stored_status({**policy_resource(), "status": grown.to_json_object()})
        shuffled = shuffled[size:]
    assert totals(status) == totals(after(EMPTY, *runs))
    assert status.totals.deleted_sessions == sum(r.sessions.deleted for r in runs)
    assert status.totals.runs_failed == sum(r.outcome is Outcome.FAILED for r in runs)


@given(runs)
def test_totals_count_beyond_the_history_and_jobs_that_left_it_only_once(runs: list[RunRecord]) -> None:
    status = EMPTY
    ordered = sorted(runs, key=lambda r: r.completion_time)
    for number in range(len(ordered)):
        # A CronJob keeps old Jobs for long: they are seen again and again.
        status = after(status, *ordered[: number + 1])
    counted = totals(status)
    assert sum(counted[f"runs_{outcome.lower()}"] for outcome in Outcome) == len(runs)


def test_a_dry_run_deletes_nothing_whatever_it_says_and_does_not_look_like_a_clean_up() -> None:
    status = after(after(EMPTY, deleting(1, 4)), deleting(5, 7, dry_run=True, reason="Completed", message="7 deleted"))
    assert (status.totals.deleted_sessions, status.totals.runs_succeeded) == (4, 2)
    judged = found(status, ConditionType.LAST_RUN_SUCCEEDED)
    assert (judged.status, judged.reason, judged.message) == (ConditionStatus.TRUE, "DryRun", "dry run: 7 deleted")
    assert status.last_success_time == run(1).completion_time
    said = "dry run: 3 expired; nothing was changed"
    again = after(EMPTY, deleting(5, 0, dry_run=True, reason="DryRun", message=said))
    assert found(again, ConditionType.LAST_RUN_SUCCEEDED).message == said


def test_a_stall_is_that_of_the_job_whose_uid_the_status_has_whatever_the_message_says() -> None:
    problem = Problem("ImagePullBackOff", "the image cannot be pulled for Pod shop-1-abcde; check it")
    status = after(EMPTY, stalled=problem, stalled_job_uid="uid-1")
    assert stall_of_job(status, "uid-1") == problem
    assert stall_of_job(status, "uid-2") is None
    assert stall_of_job(stored_status({"status": status.to_json_object()}), "uid-1") == problem
    assert stall_of_job(EMPTY, "uid-1") is None
    refused = after(status, stalled=Problem("InvalidSpec", "spec.schedule: expected exactly 5 fields"))
    assert stall_of_job(refused, "uid-1") is None
    assert "stalledJobUID" not in after(refused).to_json_object()


def test_a_dry_run_that_failed_is_no_success() -> None:
    status = after(EMPTY, run(1, Outcome.FAILED).model_copy(update={"dry_run": True}))
    judged = found(status, ConditionType.LAST_RUN_SUCCEEDED)
    assert (judged.status, judged.reason, judged.message) == (ConditionStatus.FALSE, "SomethingWrong", "dry run: run 1")


def test_totals_stay_within_what_the_schema_takes() -> None:
    huge = deleting(1, 2**53)
    status = after(after(EMPTY, huge), huge.model_copy(update={"job_uid": "another"}))
    assert status.totals.deleted_sessions == 2**53


# Missed runs.

TICK = NOW - timedelta(minutes=10)


def miss(before: SessionPolicyStatus = EMPTY, *due: datetime, **seen: Any) -> SessionPolicyStatus:
    return after(before, newly_missed=due or (TICK,), cron_job_name="shop", **seen)


def test_a_missed_run_stalls_the_policy_and_says_what_to_do() -> None:
    status = miss()
    stalled = found(status, ConditionType.STALLED)
    assert stalled.reason == "MissedSchedule"
    for said in ("2026-03-01T11:40:00Z", "1 missed", "kubectl describe cronjob shop", "kube-controller-manager"):
        assert said in stalled.message
    assert (status.missed_schedules, status.totals.missed_schedules) == (1, 1)
    assert status.last_missed_schedule_time == TICK
    assert after(status, cron_job_name="shop", minute=1) == status


def test_missed_runs_add_up_until_one_is_started() -> None:
    earlier = TICK - timedelta(hours=1)
    began = START - timedelta(hours=1)
    status = miss(miss(EMPTY, earlier, last_schedule_time=began), TICK, last_schedule_time=began)
    assert (status.missed_schedules, status.totals.missed_schedules) == (2, 2)
    started = after(status, last_schedule_time=NOW)
    assert (started.missed_schedules, started.last_missed_schedule_time) == (0, None)
    assert started.totals.missed_schedules == 2
    assert condition(started, ConditionType.STALLED) is None


def test_any_run_after_it_shows_that_runs_can_be_started() -> None:
    status = after(miss(), run(55))  # ended five minutes after it was due
    assert condition(status, ConditionType.STALLED) is None
    assert status.missed_schedules == 1
    assert found(after(miss(), run(45)), ConditionType.STALLED).reason == "MissedSchedule"
    from_the_future = run(60 * 24 * 365)
    assert condition(after(miss(), from_the_future), ConditionType.STALLED) is not None


def test_a_run_that_is_still_at_work_is_why_none_was_started_and_that_is_no_stall() -> None:
    status = miss(running="shop-1", scheduled_run=UnfinishedRun("shop-1", TICK - timedelta(minutes=70)))
    assert condition(status, ConditionType.STALLED) is None
    running = found(status, ConditionType.RUNNING)
    assert running.reason == "Overrun"
    assert "because Job shop-1 had not finished: runs take longer than the schedule's interval" in running.message
    both = miss(running="by-hand", scheduled_run=UnfinishedRun("shop-1", START))
    assert "because Job shop-1 had not" in found(both, ConditionType.RUNNING).message
    by_hand = miss(running="by-hand")
    assert found(by_hand, ConditionType.RUNNING).reason == "JobActive"


def test_a_suspended_policy_is_not_stalled_by_what_it_missed_before() -> None:
    suspended = Readiness(ConditionStatus.TRUE, "Suspended", "no runs")
    status = after(miss(), readiness=suspended)
    assert condition(status, ConditionType.STALLED) is None
    assert status.missed_schedules == 0
    assert condition(after(status), ConditionType.STALLED) is None  # resumed


def test_the_count_is_bounded_and_says_so() -> None:
    many = tuple(TICK - timedelta(minutes=n) for n in range(100))
    status = miss(miss(EMPTY, *many), NOW)
    assert (status.missed_schedules, status.totals.missed_schedules) == (100, 101)
    assert "100 or more missed" in found(status, ConditionType.STALLED).message


def test_a_cron_job_made_anew_keeps_what_is_known() -> None:
    status = miss(after(EMPTY, run(1), last_schedule_time=START), last_schedule_time=START)
    anew = after(status, cron_job_name="shop")  # no last schedule time, no Jobs: they went with the old one
    assert (anew.history, anew.totals, anew.last_schedule_time) == (status.history, status.totals, START)
    assert (anew.missed_schedules, anew.last_missed_schedule_time) == (1, TICK)


def test_a_problem_of_a_job_goes_first() -> None:
    status = miss(stalled=Problem("Unschedulable", "no node"))
    assert found(status, ConditionType.STALLED).reason == "Unschedulable"


# The lock.


def test_a_lock_that_is_never_free_is_seen_and_one_that_is_busy_once_is_not() -> None:
    status = after(EMPTY, run(0))
    for number in (1, 2):
        status = after(status, run(number, Outcome.SKIPPED))
    assert condition(status, ConditionType.STALLED) is None
    status = after(status, run(3, Outcome.SKIPPED))
    stalled = found(status, ConditionType.STALLED)
    assert stalled.reason == "LockHeld"
    assert "the last 3 runs were skipped" in stalled.message
    assert last_run_succeeded(status)
    assert condition(after(status, run(4)), ConditionType.STALLED) is None
    suspended = Readiness(ConditionStatus.TRUE, "Suspended", "no runs")
    assert condition(after(status, readiness=suspended), ConditionType.STALLED) is None
    for number in range(4, 20):
        status = after(status, run(number, Outcome.SKIPPED))
    assert "the last 10 runs, or more, were skipped" in found(status, ConditionType.STALLED).message


def test_runs_that_are_skipped_beside_one_s_own_long_run_are_no_sign_of_a_foreign_lock() -> None:
    skipped = [run(number, Outcome.SKIPPED) for number in (10, 11, 12)]
    beside = after(EMPTY, *skipped, running="shop-1", running_since=run(10).start_time)
    assert condition(beside, ConditionType.STALLED) is None
    afterwards = after(EMPTY, *skipped, running="shop-1", running_since=run(12).completion_time)
    assert found(afterwards, ConditionType.STALLED).reason == "LockHeld"


# Clocks that step.

AHEAD = 60 * 24 * 365


def test_a_run_recorded_by_a_clock_that_was_ahead_does_not_stay_the_last() -> None:
    status = after(EMPTY, run(AHEAD))
    assert status.last_success_time == NOW
    status = after(status, run(30, Outcome.FAILED))
    assert status.last_run == run(30, Outcome.FAILED)
    assert (status.consecutive_failures, status.last_success_time) == (1, NOW)
    for number in range(31, 45):
        status = after(status, run(number, Outcome.FAILED))
    assert run(AHEAD) not in status.history
    assert status.consecutive_failures == 15


def test_when_a_clock_that_stepped_back_catches_up_the_order_stays() -> None:
    fast, real, late = run(70), run(62), run(80)
    status = after(after(EMPTY, fast, minute=10), real, minute=2)
    assert status.last_run == real
    status = after(status, minute=15)
    assert status.last_run == real
    assert after(status, late, minute=21).history == [late, real, fast]


def test_a_clock_that_is_behind_for_a_while_loses_no_record() -> None:
    known = after(EMPTY, run(1), run(2, Outcome.FAILED))
    behind = after(known, run(-AHEAD), minute=-AHEAD)
    assert behind.history == [run(-AHEAD), run(2, Outcome.FAILED), run(1)]
    assert after(behind, run(5), minute=0).last_run == run(5)


def test_a_time_of_a_clock_that_was_ahead_does_not_stay_in_the_future() -> None:
    ahead = after(EMPTY, minute=AHEAD, last_schedule_time=NOW + timedelta(days=365))
    assert ahead.last_schedule_time is not None
    status = after(ahead)
    assert found(status, ConditionType.READY).last_transition_time == NOW
    assert status.last_schedule_time is None
    wrong = SessionPolicyStatus(last_success_time=NOW + timedelta(days=365))
    assert after(wrong).last_success_time == NOW


def test_a_requested_run_that_has_to_wait_is_told_with_what_runs() -> None:
    waiting = after(EMPTY, running="shop-1", waiting_run_request="later")
    told = found(waiting, ConditionType.RUNNING)
    assert "shop-1" in told.message
    assert "later" in told.message
    assert waiting.last_handled_run_request is None
    long = found(after(EMPTY, running="j" * 63, waiting_run_request="t" * 256), ConditionType.RUNNING)
    assert "t" * 256 in long.message
