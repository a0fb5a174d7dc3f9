"""Whether a finished Job can be judged by the Pods that are known."""

from __future__ import annotations

from typing import Any

import pytest

from controller.runs.job_state import has_all_pods
from tests.unit.controller.builders import job, pod

DISRUPTED = {"type": "DisruptionTarget", "status": "True"}


def ended(**counted: int) -> dict[str, Any]:
    finished = job(ended="Complete" if "succeeded" in counted else "Failed")
    finished["status"] |= counted
    return finished


@pytest.mark.parametrize(
    ("finished", "pods", "complete"),
    [
        (job(), [], True),
        (ended(succeeded=1), [], False),
        (ended(succeeded=1), [pod(phase="Running")], False),
        (ended(succeeded=1), [pod(phase="Succeeded")], True),
        (ended(succeeded=1, failed=1), [pod(phase="Failed")], False),
        (ended(succeeded=1, failed=1), [pod(phase="Failed"), pod(phase="Succeeded")], True),
        (ended(failed=1), [pod(phase="Failed", conditions=[DISRUPTED])], False),
        (ended(failed=1), [pod(phase="Failed", conditions=[DISRUPTED]), pod(phase="Failed")], True),
        (ended(), [], True),
    ],
    ids=["active", "none", "running", "succeeded", "one of two", "both", "disrupted", "disrupted and own", "no pod"],
)
def test_r1_2_a_pod_that_is_counted_and_not_known_is_missed(
    finished: dict[str, Any], pods: list[dict[str, Any]], complete: bool
) -> None:
    assert has_all_pods(finished, pods) is complete


def test_r6_of_a_job_whose_leader_succeeded_the_leader_s_pod_is_evidence_enough() -> None:
    # Helpers that were not needed any more are counted, and deleted.
    finished = job(ended="Complete", workers=3)
    finished["status"] |= {"succeeded": 2, "failed": 1, "completedIndexes": "0-1"}
    leader, helper = pod(name="a", index=0, phase="Succeeded"), pod(name="b", index=1, phase="Succeeded")
    assert has_all_pods(finished, [leader])
    assert not has_all_pods(finished, [helper])
    assert not has_all_pods(finished, [pod(index=0, phase="Running"), helper])
    finished["status"]["completedIndexes"] = "1"
    assert not has_all_pods(finished, [leader, helper])
    assert has_all_pods(finished, [leader, helper, pod(name="c", index=2, phase="Failed")])
