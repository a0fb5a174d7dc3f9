"""What becomes of a SessionRevocation, step by step; and that it never happens twice."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.revocation.revocation_status import (
    NextStep,
    Observation,
    condition,
    events_between,
    expires_at,
    is_finished,
    next_step,
    without_user,
)
from controller.runs.pods import Problem
from controller.status.policy_status import read_status
from policy.manifest import parse_revocation
from policy.names import API_VERSION
from policy.revocation import RevocationConditionType, SessionRevocationStatus
from tests.unit.controller.builders import START, pod, terminated, timestamp, waiting
from tests.unit.controller.builders import job as run_job

UID = "uid-of-revocation"
JOB = "uid-of-job"
NAME = f"revoke-{UID}"
USER = "canary-user"
EMPTY = SessionRevocationStatus()
NO_POLICY = Problem("PolicyNotFound", "there is no SessionPolicy shop in this namespace")


def resource(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "SessionRevocation",
        "metadata": {
            **{"name": "ticket-1", "namespace": "web", "uid": UID, "generation": 1},
            "creationTimestamp": timestamp(START),
        },
        "spec": {"policyName": "shop"} | (spec or {"user": USER}),
    }


def sight(seconds: int = 0, **seen: Any) -> Observation:
    spec = seen.pop("spec", {})
    now = START + timedelta(seconds=seconds)
    return Observation(now=now, revocation=parse_revocation(resource(**spec)), uid=UID, created=START, **seen)


def job(*, suspend: bool = False, uid: str = JOB, owner: str = UID, **changed: Any) -> dict[str, Any]:
    attempts = changed.pop("attempts", {})
    found = run_job(name=NAME, uid=uid, **changed)
    found["metadata"]["ownerReferences"] = [{"uid": owner, "controller": True}]
    found["spec"]["suspend"] = suspend
    if suspend:
        del found["status"]["startTime"]
    found["status"] |= attempts
    return found


def report(
    reason: str = "Revoked", message: str = "2 sessions revoked", *, dry_run: bool = False, **counts: int
) -> str:
    document = {"reason": reason, "message": message, "dryRun": dry_run, "sessions": counts}
    return json.dumps(document)


def attempt(number: int, exit_code: int, message: str = "", **status: Any) -> dict[str, Any]:
    return pod(
        name=f"{NAME}-{number}",
        owner=JOB,
        created=START + timedelta(seconds=number),
        state=terminated(exit_code, message),
        **status,
    )


def states(status: SessionRevocationStatus) -> dict[str, tuple[str, str]]:
    return {c.type.value: (c.status.value, c.reason) for c in status.conditions}


def ended(*pods: dict[str, Any], how: str = "Complete", reason: str = "", spec: Any = None, **changed: Any) -> NextStep:
    seen = sight(30, job=job(ended=how, reason=reason, **changed), pods=pods, spec=spec or {})
    return next_step(next_step(EMPTY, sight(job=job(suspend=True))).status, seen)


# --- the usual course ------------------------------------------------------------------------------------------------


def test_the_job_s_uid_is_written_before_it_may_start() -> None:
    step = next_step(EMPTY, sight(job=job(suspend=True)))
    assert step.resume
    assert (step.status.job_name, step.status.job_uid, step.status.start_time) == (NAME, JOB, None)
    assert states(step.status) == {"Complete": ("False", "Starting"), "Reconciling": ("True", "Starting")}


def test_while_it_runs_it_is_in_progress_for_every_tool() -> None:
    before = next_step(EMPTY, sight(job=job(suspend=True))).status
    step = next_step(before, sight(1, job=job(), pods=[pod(name=f"{NAME}-a", owner=JOB, state={"running": {}})]))
    assert (step.resume, step.status.start_time) == (False, START)
    assert states(step.status) == {"Complete": ("False", "Running"), "Reconciling": ("True", "Running")}


def test_r3_6_the_status_tells_how_many_went() -> None:
    said = report(found=3, revoked=3, databaseRows=2, redisKeys=3)
    step = ended(attempt(1, 0, said))
    assert states(step.status) == {"Complete": ("True", "Revoked")}
    assert is_finished(step.status)
    assert step.status.sessions is not None
    assert step.status.sessions.to_json_object() == {
        **{"found": 3, "revoked": 3, "left": 0, "databaseRows": 2, "redisKeys": 3}
    }
    assert step.status.completion_time == START + timedelta(seconds=20)
    assert message(step) == "3 sessions revoked (2 in the database, 3 in Redis)"


def message(step: NextStep) -> str:
    found = condition(step.status, RevocationConditionType.COMPLETE)
    assert found is not None
    return found.message


def test_what_several_attempts_did_is_added_up() -> None:
    first = attempt(1, 1, report("SessionsInUse", found=5, revoked=3, left=2, databaseRows=3, redisKeys=1))
    second = attempt(2, 0, report(found=2, revoked=2, databaseRows=2, redisKeys=2))
    step = ended(second, first, attempts={"failed": 1, "succeeded": 1})
    assert step.status.sessions is not None
    assert (step.status.sessions.found, step.status.sessions.revoked, step.status.sessions.left) == (5, 5, 0)
    assert "not counted" not in message(step)


@pytest.mark.parametrize("killed", [[], [attempt(1, 137)]], ids=["its Pod is gone", "without a report"])
def test_an_attempt_that_was_cut_off_is_not_counted_and_that_is_told(killed: list[dict[str, Any]]) -> None:
    step = ended(*killed, attempt(2, 0, report("NoSessions")), attempts={"failed": 1, "succeeded": 1})
    assert states(step.status) == {"Complete": ("True", "Revoked")}
    assert "not counted" in message(step)


def test_a_dry_run_says_so() -> None:
    step = ended(attempt(1, 0, report("DryRun", dry_run=True, found=4)))
    assert (states(step.status), step.status.dry_run) == ({"Complete": ("True", "DryRun")}, True)
    assert "4 sessions would be revoked" in message(step)
    assert step.status.sessions is not None
    assert (step.status.sessions.found, step.status.sessions.revoked) == (4, 0)


@pytest.mark.parametrize(("spec", "words"), [({"user": "ann"}, "no session to revoke"),
                                             ({"sessionHash": "s:" + "0" * 20}, "another key")])  # fmt: skip
def test_nothing_to_revoke_is_an_end_too(spec: dict[str, Any], words: str) -> None:
    step = ended(attempt(1, 0, report("NoSessions")), spec=spec)
    assert states(step.status) == {"Complete": ("True", "NoSessions")}
    assert words in message(step)


# --- failures --------------------------------------------------------------------------------------------------------

FAILED = {"Complete", "Failed", "Stalled"}


def failure(step: NextStep) -> str:
    assert set(states(step.status)) == FAILED
    assert is_finished(step.status)
    status, reason = states(step.status)["Complete"]
    assert status == "False"
    return reason


def test_a_failure_has_the_container_s_reason_and_what_went_nevertheless() -> None:
    said = report("DatabaseUnavailable", "no route to the database", found=1, revoked=1)
    step = ended(attempt(1, 1, said), how="Failed", reason="BackoffLimitExceeded")
    assert failure(step) == "DatabaseUnavailable"
    assert message(step) == "no route to the database"
    assert step.status.sessions is not None
    assert step.status.sessions.revoked == 1


@pytest.mark.parametrize(
    ("pods", "reason", "expected"),
    [
        ([attempt(1, 2)], "PodFailurePolicy", "BadConfiguration"),
        ([attempt(1, 1, "not a report")], "BackoffLimitExceeded", "NoReport"),
        ([attempt(1, 1, report("R" * 80))], "BackoffLimitExceeded", "NoReport"),
        ([attempt(1, 137, reason="Evicted")], "BackoffLimitExceeded", "Evicted"),
        ([attempt(1, 0, report(revoked=1))], "DeadlineExceeded", "NoReport"),
        ([], "DeadlineExceeded", "DeadlineExceeded"),
        ([], "BackoffLimitExceeded", "PodsGone"),
    ],
)
def test_a_failure_that_was_not_reported(pods: list[dict[str, Any]], reason: str, expected: str) -> None:
    assert failure(ended(*pods, how="Failed", reason=reason)) == expected


@pytest.mark.parametrize("pods", [[], [attempt(1, 0, "nonsense")], [attempt(1, 0, report(revoked=-1))]], ids=str)
def test_a_job_that_ended_well_without_a_report_is_not_believed(pods: list[dict[str, Any]]) -> None:
    step = ended(*pods)
    assert failure(step) == "NoReport"
    assert step.status.sessions is None


def test_a_pod_that_is_not_the_job_s_has_no_say() -> None:
    forged = attempt(5, 0, report(revoked=99))
    forged["metadata"]["ownerReferences"] = [{"uid": "another"}]
    step = ended(forged, attempt(1, 0, report(revoked=1)))
    assert step.status.sessions is not None
    assert step.status.sessions.revoked == 1


def test_a_container_s_words_that_hold_the_user_are_withheld() -> None:
    step = ended(attempt(1, 1, report("Oops", f"no such thing as {USER}")), how="Failed")
    assert failure(step) == "Oops"
    assert USER not in json.dumps(step.status.to_json_object())
    assert without_user("quota exceeded", USER) == "quota exceeded"
    assert without_user("anything", None) == "anything"


# --- stuck, blocked --------------------------------------------------------------------------------------------------


def test_a_pod_that_cannot_start_is_told_and_what_it_waits_for_is_the_reason_of_the_end() -> None:
    before = next_step(EMPTY, sight(job=job(suspend=True))).status
    stuck = pod(name=f"{NAME}-abcde", owner=JOB, state=waiting("ErrImagePull"))
    step = next_step(before, sight(5, job=job(), pods=[stuck]))
    assert states(step.status) == {"Complete": ("False", "ImagePullBackOff"), "Stalled": ("True", "ImagePullBackOff")}
    late = next_step(step.status, sight(900, job=job(ended="Failed", reason="DeadlineExceeded")))
    assert failure(late) == "ImagePullBackOff"


def test_a_missing_policy_is_waited_for_and_not_for_ever() -> None:
    step = next_step(EMPTY, sight(blocked=NO_POLICY))
    assert states(step.status) == {"Complete": ("False", "PolicyNotFound"), "Reconciling": ("True", "PolicyNotFound")}
    assert step.recheck_seconds == 60
    assert next_step(step.status, sight(3590, blocked=NO_POLICY)).recheck_seconds == 10
    late = next_step(step.status, sight(3600, blocked=NO_POLICY))
    assert failure(late) == "PolicyNotFound"
    assert "given up after an hour" in message(late)


def test_a_controller_that_was_away_for_long_still_does_it() -> None:
    assert next_step(EMPTY, sight(100_000, job=job(suspend=True))).resume


# --- once ------------------------------------------------------------------------------------------------------------


def test_a_job_that_vanished_is_a_failure_and_no_reason_for_another() -> None:
    before = next_step(EMPTY, sight(job=job(suspend=True))).status
    for seen in (sight(9), sight(9, job=job(uid="another", suspend=True))):
        step = next_step(before, seen)
        assert failure(step) == "JobGone"
        assert not step.resume
        assert (step.status.job_uid, step.status.job_name) == (JOB, NAME)


def test_a_job_that_was_not_made_for_it_is_left_alone() -> None:
    step = next_step(EMPTY, sight(job=job(suspend=True, owner="somebody")))
    assert (failure(step), step.resume, step.status.job_uid) == ("NotOwned", False, None)


def test_a_status_that_was_lost_is_read_off_the_job_again() -> None:
    seen = sight(30, job=job(ended="Complete"), pods=[attempt(1, 0, report(revoked=2))])
    assert states(next_step(EMPTY, seen).status) == {"Complete": ("True", "Revoked")}


sights = st.sampled_from(
    [
        {},
        {"blocked": NO_POLICY},
        {"job": job(suspend=True)},
        {"job": job(suspend=True, uid="second")},
        {"job": job()},
        {"job": job(uid="second")},
        {"job": job(ended="Complete"), "pods": [attempt(1, 0, report(revoked=1))]},
        {"job": job(ended="Failed")},
        {"job": job(ended="Complete", uid="second")},
    ]
)


@given(course=st.lists(sights, max_size=8))
def test_whatever_is_seen_in_whatever_order_only_one_job_ever_starts(course: list[dict[str, Any]]) -> None:
    status, started = EMPTY, set[str]()
    for number, seen in enumerate(course):
        step = next_step(status, sight(number, **seen))
        stored = json.loads(json.dumps(step.status.to_json_object()))
        status = read_status(SessionRevocationStatus, {"status": stored})
        assert status == step.status
        if step.resume:
            assert status.job_uid == seen["job"]["metadata"]["uid"]
            started.add(seen["job"]["metadata"]["uid"])
        if is_finished(status):
            break
    assert len(started) <= 1


# --- Events, the end -------------------------------------------------------------------------------------------------


def told(before: SessionRevocationStatus, after: SessionRevocationStatus) -> list[tuple[str, str]]:
    return [(event.severity.value, event.reason) for event in events_between(before, after)]


def test_events_tell_what_changed_and_nothing_twice() -> None:
    blocked = next_step(EMPTY, sight(blocked=NO_POLICY)).status
    started = next_step(blocked, sight(job=job(suspend=True))).status
    running = next_step(started, sight(1, job=job())).status
    done = next_step(running, sight(2, job=job(ended="Complete"), pods=[attempt(1, 0, report(revoked=2))])).status
    assert told(EMPTY, blocked) == [("Warning", "PolicyNotFound")]
    assert told(blocked, blocked) == []
    assert told(blocked, started) == [("Normal", "JobCreated")]
    assert told(started, running) == []
    assert told(running, done) == [("Normal", "Revoked")]
    assert told(running, next_step(running, sight(3)).status) == [("Warning", "JobGone")]


def test_transition_times_stay_while_nothing_changes() -> None:
    first = next_step(EMPTY, sight(blocked=NO_POLICY)).status
    later = next_step(first, sight(60, blocked=NO_POLICY)).status
    assert later == first


@pytest.mark.parametrize(
    ("spec", "seconds"), [({"user": "a"}, 86400), ({"user": "a", "ttlSecondsAfterFinished": 0}, 0)]
)
def test_it_expires_so_long_after_its_end(spec: dict[str, Any], seconds: int) -> None:
    status = ended(attempt(1, 0, report())).status
    assert expires_at(resource(**spec), status) == START + timedelta(seconds=20 + seconds)
