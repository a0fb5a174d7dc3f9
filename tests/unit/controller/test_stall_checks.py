"""What keeps an unfinished Job from going on."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from controller.runs.pods import Problem
from controller.runs.stall_checks import Progress, check_progress
from tests.unit.controller.builders import JOB_UID, START, job, pod, terminated, timestamp, waiting

SECOND = timedelta(seconds=1)
PULLING = waiting("ErrImagePull")


OWN = Problem("ImagePullBackOff", "the image cannot be pulled for Pod shop-29000000-abcde; check it")


def reason(found: Progress) -> str | None:
    return found.stalled.reason if found.stalled else None


def test_a_pod_that_cannot_start_stalls_its_job_and_only_that() -> None:
    assert reason(check_progress(job(), [pod(state=PULLING)], None, START)) == "ImagePullBackOff"
    assert check_progress(job(), [pod(owner="another", state=PULLING)], None, START).stalled is None


def test_a_pod_that_starts_ends_the_stall() -> None:
    assert check_progress(job(), [pod(state={"running": {}})], OWN, START) == Progress()


def test_the_newest_attempt_counts() -> None:
    pods = [pod(name="a", state=PULLING), pod(name="b", created=START + SECOND, state={"running": {}})]
    assert check_progress(job(), pods, None, START) == Progress()


def ending() -> dict[str, Any]:
    found = job()
    found["status"]["conditions"] = [{"type": "FailureTarget", "status": "True", "lastTransitionTime": "x"}]
    return found


def deleted() -> dict[str, Any]:
    found = pod(state=waiting("ContainerCreating"))
    found["metadata"]["deletionTimestamp"] = "2026-03-01T10:51:00Z"
    return found


@pytest.mark.parametrize(
    ("unfinished", "pods"), [(job(), []), (ending(), [pod()]), (job(), [deleted()])], ids=["gone", "ending", "deleted"]
)
def test_while_a_job_is_being_ended_the_cause_is_kept(unfinished: dict[str, Any], pods: list[dict[str, Any]]) -> None:
    assert reason(check_progress(unfinished, pods, OWN, START)) == "ImagePullBackOff"


def test_the_cause_is_kept_when_a_pod_s_time_runs_out_before_it_has_a_container() -> None:
    stopped = pod(state=terminated(137, "", "ContainerStatusUnknown"), phase="Failed", reason="DeadlineExceeded")
    assert reason(check_progress(job(), [stopped], OWN, START)) == "ImagePullBackOff"
    assert reason(check_progress(job(), [stopped], None, START)) is None
    waits = pod(state=PULLING, phase="Failed", reason="DeadlineExceeded")
    assert reason(check_progress(job(), [waits], None, START)) == "ImagePullBackOff"
    had_run = pod(state=terminated(137), phase="Failed", reason="DeadlineExceeded")
    assert reason(check_progress(job(), [had_run], OWN, START)) is None


REFUSED = {
    "metadata": {"creationTimestamp": "2026-03-01T10:50:05Z"},
    "reason": "FailedCreate",
    "message": 'Error creating: pods "shop-29000000-x" is forbidden: exceeded quota: none',
    "source": {"component": "job-controller"},
}


def after(seconds: int) -> datetime:
    return START + seconds * SECOND


def test_a_job_without_a_pod_is_looked_at_again_asked_about_and_then_said_to_be_stalled() -> None:
    assert check_progress(job(), [], None, after(4)) == Progress(recheck_seconds=6)
    assert check_progress(job(), [], None, after(10)) == Progress(unexplained_uid=JOB_UID)
    assert check_progress(job(), [], None, after(20), []) == Progress(recheck_seconds=40)
    assert reason(check_progress(job(), [], None, after(20), [REFUSED])) == "QuotaExceeded"
    late = check_progress(job(), [], None, after(60), [])
    assert (reason(late), late.recheck_seconds) == ("PodNotCreated", 60)


def test_the_cause_outlives_the_event_that_told_it_but_not_a_new_one() -> None:
    told = check_progress(job(), [], None, after(20), [REFUSED]).stalled
    assert told is not None
    assert check_progress(job(), [], told, after(4000), []).stalled == told
    other = REFUSED | {"message": "Error creating: admission webhook x denied the request: no"}
    assert reason(check_progress(job(), [], told, after(4000), [other])) == "AdmissionDenied"


def test_a_clock_that_is_behind_does_not_put_the_look_off() -> None:
    found = check_progress(job(), [], None, after(-7200))
    assert found.recheck_seconds is not None
    assert found.recheck_seconds <= 60


def over(seconds: int) -> dict[str, Any]:
    ended = {"exitCode": 1, "reason": "Error", "finishedAt": timestamp(after(seconds))}
    return pod(state={"terminated": ended}, phase="Failed")


def test_a_second_attempt_that_gets_no_pod_is_told_but_not_the_pause_before_it() -> None:
    assert check_progress(job(), [over(100)], None, after(101)) == Progress(recheck_seconds=9)
    assert check_progress(job(), [over(100)], None, after(120)) == Progress(unexplained_uid=JOB_UID)
    assert check_progress(job(), [over(100)], None, after(120), []) == Progress(recheck_seconds=60)
    assert reason(check_progress(job(), [over(100)], None, after(120), [REFUSED])) == "QuotaExceeded"


def test_a_job_that_somebody_suspended_is_told() -> None:
    suspended = job()
    suspended["spec"]["suspend"] = True
    found = check_progress(suspended, [], None, after(1))
    assert reason(found) == "JobSuspended"
    assert found.stalled is not None
    assert check_progress(job(), [], found.stalled, after(4)) == Progress(recheck_seconds=6)


def scheduled(state: dict[str, Any] | None = None) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": timestamp(START)}
    return pod(state=state, phase="Pending", conditions=[condition])


@pytest.mark.parametrize("state", [None, waiting("ContainerCreating")])
def test_a_container_that_is_not_created_for_long_is_asked_about(state: dict[str, Any] | None) -> None:
    found = scheduled(state)
    assert check_progress(job(), [found], None, after(20)) == Progress(recheck_seconds=40)
    assert check_progress(job(), [found], None, after(60)) == Progress(unexplained_uid=found["metadata"]["uid"])
    # Pulling a large image is no reason to be called stalled.
    assert check_progress(job(), [found], None, after(600), []) == Progress(recheck_seconds=60)
    mount = REFUSED | {"reason": "FailedMount", "message": "no volume", "source": {"component": "kubelet"}}
    told = check_progress(job(), [found], None, after(60), [mount])
    assert reason(told) == "FailedMount"


def test_a_pod_that_waits_for_a_node_is_looked_at_again() -> None:
    assert check_progress(job(), [pod(phase="Pending")], None, after(5)) == Progress(recheck_seconds=60)


def test_a_pod_that_does_not_end_when_it_should_is_told() -> None:
    terminating = pod(state={"running": {}}, phase="Running")
    terminating["metadata"]["deletionTimestamp"] = timestamp(after(30))
    assert check_progress(job(), [terminating], None, after(40)) == Progress(recheck_seconds=50)
    assert reason(check_progress(job(), [terminating], None, after(90))) == "PodTerminating"


def test_a_pod_on_a_node_that_went_silent_is_told() -> None:
    unready = {"type": "Ready", "status": "False", "lastTransitionTime": timestamp(START)}
    silent = pod(state={"running": {}}, phase="Running", conditions=[unready])
    assert check_progress(job(), [silent], None, after(20)) == Progress(recheck_seconds=40)
    assert reason(check_progress(job(), [silent], None, after(60))) == "NodeLost"
    ready = pod(state={"running": {}}, phase="Running", conditions=[unready | {"status": "True"}])
    assert check_progress(job(), [ready], None, after(600)) == Progress()


RUNNING: dict[str, Any] = {"running": {}}


def shared() -> dict[str, Any]:
    return job(workers=2)


def test_r6_a_worker_that_cannot_start_stalls_the_run_the_leader_first() -> None:
    leads, helps = pod(name="shop-29000000-0-a", index=0, state=RUNNING), pod(name="b", index=1, state=RUNNING)
    assert check_progress(shared(), [leads, helps], None, START) == Progress()
    waits = pod(name="shop-29000000-1-b", index=1, state=PULLING)
    found = check_progress(shared(), [leads, waits], None, START).stalled
    assert found is not None
    assert "shop-29000000-1-b" in found.message
    secret = pod(name="shop-29000000-0-a", index=0, state=waiting("CreateContainerConfigError", "no secret"))
    assert reason(check_progress(shared(), [waits, secret], None, START)) == "CreateContainerConfigError"


def test_r6_a_worker_for_which_there_is_no_room_is_told_with_its_cause() -> None:
    leads = pod(name="shop-29000000-0-a", index=0, state=RUNNING)
    assert check_progress(shared(), [leads], None, after(4)) == Progress(recheck_seconds=6)
    assert check_progress(shared(), [leads], None, after(10)) == Progress(unexplained_uid=JOB_UID)
    assert reason(check_progress(shared(), [leads], None, after(20), [REFUSED])) == "QuotaExceeded"


@pytest.mark.parametrize("state", [terminated(0), terminated(1), terminated(137)])
def test_r6_a_helper_that_has_ended_keeps_nothing_from_going_on(state: dict[str, Any]) -> None:
    leads = pod(name="shop-29000000-0-a", index=0, state=RUNNING)
    over = pod(name="b", index=1, state=state, phase="Succeeded" if state == terminated(0) else "Failed")
    assert check_progress(shared(), [leads, over], None, after(100)) == Progress()
    # Once it runs, what kept it from that is over.
    assert check_progress(shared(), [leads, over], OWN, after(100)) == Progress()
