"""Pods as a kubelet leaves them: whole statuses, as read from nodes, where `Kubelet` writes the least that matters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.controlplane.api import Api
from tests.controlplane.kubelet import CONTAINER, Kubelet, report
from tests.controlplane.policies import Policies

_IMAGE = "registry.example/session-policy-job:test"
_STARTED = {"startedAt": "2026-03-01T10:50:00Z", "finishedAt": "2026-03-01T11:00:00Z", "containerID": "containerd://1"}


def container(state: dict[str, Any], last: dict[str, Any] | None = None, image_id: str = "sha256:1") -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": _IMAGE,
        "imageID": image_id,
        "ready": False,
        "started": False,
        "restartCount": 0,
        "state": state,
        "lastState": last or {},
    }


def terminated(exit_code: int, reason: str, message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": exit_code, "reason": reason, "message": message} | _STARTED}


def conditions(*more: dict[str, Any]) -> list[dict[str, Any]]:
    usual = [
        {"type": "PodReadyToStartContainers", "status": "False"},
        {"type": "Initialized", "status": "True"},
        {"type": "Ready", "status": "False", "reason": "PodFailed"},
        {"type": "ContainersReady", "status": "False", "reason": "PodFailed"},
        {"type": "PodScheduled", "status": "True"},
    ]
    return [*more, *usual]


@dataclass(frozen=True)
class Ending:
    """The status of a run's only Pod, and what the policy must say."""

    status: dict[str, Any]
    reason: str
    words: str


_DEADLINE = {"phase": "Failed", "reason": "DeadlineExceeded"} | {
    "message": "Pod was active on the node longer than the specified deadline",
    "conditions": conditions(),
}
_REPORTED = report(outcome="Degraded", reason="TimeLimit", message="4 of 9 sessions deleted")

ENDINGS = {
    "out of memory": Ending(
        {
            "phase": "Failed",
            "conditions": conditions(),
            "containerStatuses": [container(terminated(137, "OOMKilled"))],
        },
        "OOMKilled",
        "spec.job.resources.limits.memory",
    ),
    "deadline, and the container did not heed SIGTERM": Ending(
        _DEADLINE | {"containerStatuses": [container(terminated(137, "Error"))]}, "DeadlineExceeded", "timeoutSeconds"
    ),
    "deadline, and the container had the time to report": Ending(
        _DEADLINE | {"containerStatuses": [container(terminated(0, "Completed", _REPORTED))]},
        "DeadlineExceeded",
        "timeoutSeconds",
    ),
    "deadline before the container was made": Ending(
        _DEADLINE | {"containerStatuses": [container({"waiting": {"reason": "ContainerCreating"}}, image_id="")]},
        "DeadlineExceeded",
        "timeoutSeconds",
    ),
}


@pytest.mark.representative(2)
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
def test_r1_2_a_failed_pod_s_cause_is_told(policies: Policies, ending: Ending) -> None:
    policy = policies.ready()
    job = policy.request_run()
    pod = Kubelet(policies.kubectl, policies.namespace).pod_of(job)
    Api(policies.kubectl.kubeconfig).patch_status("pods", policies.namespace, pod, ending.status)
    record = policy.await_record(job)
    assert (record["outcome"], record["reason"]) == ("Failed", ending.reason)
    assert ending.words in record["message"]
    assert policy.condition("LastRunSucceeded")["reason"] == ending.reason
    assert policy.condition("Ready")["status"] == "True"


def test_r1_2_an_evicted_pod_s_lost_container_is_no_failed_run(policies: Policies) -> None:
    policy = policies.ready()
    job = policy.request_run()
    kubelet = Kubelet(policies.kubectl, policies.namespace)
    pod = kubelet.pod_of(job)
    disrupted = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "TerminationByKubelet",
        "message": "The node was low on resource: memory. Threshold quantity: 100Mi, available: 20Mi.",
    }
    lost = terminated(137, "ContainerStatusUnknown", "The container could not be located when the pod was terminated")
    evicted = {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on resource: memory. Threshold quantity: 100Mi, available: 20Mi.",
        "conditions": conditions(disrupted),
        "containerStatuses": [container(lost)],
    }
    Api(policies.kubectl.kubeconfig).patch_status("pods", policies.namespace, pod, evicted)
    # Retries are 0: were this an attempt, there would be no second Pod.
    kubelet.pod_of(job, other_than=pod)
    kubelet.finish(job, report())
    assert policy.await_record(job)["outcome"] == "Succeeded"
    assert policy.status().get("consecutiveFailures", 0) == 0


WAITING = {
    "no Secret": ("CreateContainerConfigError", 'secret "stores" not found', "CreateContainerConfigError"),
    "no such key": (
        "CreateContainerConfigError",
        "couldn't find key database-url in Secret shop/stores",
        "CreateContainerConfigError",
    ),
    "image not found": (
        "ErrImagePull",
        'rpc error: code = NotFound desc = failed to pull and unpack image "x": not found',
        "ImagePullBackOff",
    ),
    "no right to the image": (
        "ImagePullBackOff",
        'Back-off pulling image "x": ErrImagePull: 401 Unauthorized',
        "ImagePullBackOff",
    ),
}


@pytest.mark.representative(2)
@pytest.mark.parametrize(("waiting", "message", "reason"), WAITING.values(), ids=WAITING.keys())
def test_r1_2_a_pod_that_waits_tells_why(policies: Policies, waiting: str, message: str, reason: str) -> None:
    policy = policies.ready()
    job = policy.request_run()
    pod = Kubelet(policies.kubectl, policies.namespace).pod_of(job)
    state = {"waiting": {"reason": waiting, "message": message}}
    status = {
        "phase": "Pending",
        "conditions": conditions(),
        "containerStatuses": [container(state, image_id="")],
    }
    Api(policies.kubectl.kubeconfig).patch_status("pods", policies.namespace, pod, status)
    stalled = policy.await_condition("Stalled", "True", reason)
    # A missing Secret is named; of a registry, whose words may hold anything, only the image is.
    assert (message if reason == "CreateContainerConfigError" else _IMAGE) in stalled["message"]
