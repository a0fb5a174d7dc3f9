"""What keeps an unfinished Job from going on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from controller.progress import Progress, progress, stall_of_job
from policy.status import Condition, ConditionStatus, ConditionType
from tests.unit.controller.builders import START, job, pod, waiting

SECOND = timedelta(seconds=1)
PULLING = waiting("ErrImagePull")


def stalled(message: str) -> Condition:
    return Condition(
        type=ConditionType.STALLED,
        status=ConditionStatus.TRUE,
        reason="ImagePullBackOff",
        message=message,
        last_transition_time=START,
        observed_generation=7,
    )


OWN = stalled("the image cannot be pulled for Pod shop-29000000-abcde; check it")


def reason(found: Progress) -> str | None:
    return found.stalled.reason if found.stalled else None


def test_a_pod_that_cannot_start_stalls_its_job_and_only_that() -> None:
    assert reason(progress(job(), [pod(state=PULLING)], None, START)) == "ImagePullBackOff"
    assert progress(job(), [pod(owner="another", state=PULLING)], None, START).stalled is None


def test_a_pod_that_starts_ends_the_stall() -> None:
    assert progress(job(), [pod(state={"running": {}})], OWN, START) == Progress()


def test_the_newest_attempt_counts() -> None:
    pods = [pod(name="a", state=PULLING), pod(name="b", created=START + SECOND, state={"running": {}})]
    assert progress(job(), pods, None, START) == Progress()


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
    assert reason(progress(unfinished, pods, OWN, START)) == "ImagePullBackOff"


def test_another_job_s_stall_is_not_this_one_s() -> None:
    assert stall_of_job(OWN, job()) is not None
    assert stall_of_job(stalled("no Pod could be created for Job shop-29000000 - a quota"), job()) is not None
    assert stall_of_job(stalled("cannot be pulled for Pod shop-290000001-abcde; check it"), job()) is None
    assert stall_of_job(stalled("spec.schedule: expected exactly 5 fields"), job()) is None
    assert stall_of_job(None, job()) is None


def test_a_job_that_gets_no_pod_is_looked_at_again_and_then_said_to_be_stalled() -> None:
    early = progress(job(), [], None, START + 20 * SECOND)
    assert (early.stalled, early.recheck_seconds) == (None, 40)
    late = progress(job(), [], None, START + 60 * SECOND)
    assert reason(late) == "PodNotCreated"
    assert stall_of_job(stalled(late.stalled.message if late.stalled else ""), job()) is not None
