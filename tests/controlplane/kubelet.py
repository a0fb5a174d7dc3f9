"""Plays the kubelet: writes the status that one would write. The Job controller that reads it is the real one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from tests.controlplane.api import Api
from tests.support.kube import Kubectl, eventually

CONTAINER = "session-policy"

REPORT: dict[str, Any] = {
    "outcome": "Succeeded",
    "reason": "Completed",
    "message": "3 of 3 expired sessions deleted",
    "startTime": "2026-03-01T10:50:02Z",
    "completionTime": "2026-03-01T10:50:03Z",
    "durationSeconds": 0.25,
    "policyGeneration": 1,
    "sessions": {"active": 5, "expired": 3, "deleted": 3},
    "redis": {"sessions": 8, "deleted": 3},
}


def report(**changed: Any) -> str:
    """A report as the container writes it."""
    return json.dumps(REPORT | changed)


class Kubelet:
    """The kubelet of one namespace."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._api = Api(kubectl.kubeconfig)
        self._namespace = namespace

    def pod_of(self, job: str, *, other_than: str = "", index: int | None = None) -> str:
        """Name of the Job's Pod that is not finished, once the Job controller has made it.

        Of an Indexed Job the one with this index.
        """
        selector = f"batch.kubernetes.io/job-name={job}"
        if index is not None:
            selector += f",batch.kubernetes.io/job-completion-index={index}"

        def probe() -> str:
            for pod in self._api.list("pods", self._namespace, selector):
                name: str = pod["metadata"]["name"]
                if name != other_than and pod["status"].get("phase", "Pending") in ("Pending", "Running"):
                    return name
            return ""

        return eventually(probe, what=f"a Pod of Job {job}")

    def finish(
        self,
        job: str,
        message: str = "",
        *,
        exit_code: int = 0,
        reason: str = "",
        index: int | None = None,
        **status: Any,
    ) -> str:
        """The container of the Job's Pod ends; returns the Pod's name."""
        pod = self.pod_of(job, index=index)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        state = {
            "terminated": {
                "exitCode": exit_code,
                "reason": reason or ("Completed" if exit_code == 0 else "Error"),
                "message": message,
                "startedAt": now,
                "finishedAt": now,
            }
        }
        self._write(pod, {"phase": "Succeeded" if exit_code == 0 else "Failed"} | _container(state) | status)
        return pod

    def terminate(self, job: str, message: str, *, exit_code: int) -> None:
        """The container has ended, and the Pod is not yet said to have."""
        state = {"terminated": {"exitCode": exit_code, "reason": "Error", "message": message}}
        self._write(self.pod_of(job), {"phase": "Running"} | _container(state))

    def wait(self, job: str, reason: str, message: str, *, index: int | None = None) -> str:
        """The container of the Job's Pod cannot start; returns the Pod's name."""
        pod = self.pod_of(job, index=index)
        self._write(pod, {"phase": "Pending"} | _container({"waiting": {"reason": reason, "message": message}}))
        return pod

    def unschedulable(self, job: str, message: str) -> None:
        """As the scheduler does when no node will do."""
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        self._write(self.pod_of(job), {"phase": "Pending", "conditions": [condition]})

    def evict(self, job: str) -> str:
        """The node runs short and fails the Pod; returns the Pod's name."""
        pod = self.pod_of(job)
        disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
        self._write(
            pod, {"phase": "Failed", "reason": "Evicted", "message": "low on memory", "conditions": [disrupted]}
        )
        return pod

    def fail(self, job: str, reason: str) -> None:
        """The kubelet fails the Pod, for instance by its deadline."""
        self._write(self.pod_of(job), {"phase": "Failed", "reason": reason})

    def _write(self, pod: str, status: dict[str, Any]) -> None:
        self._api.patch_status("pods", self._namespace, pod, status)


def _container(state: dict[str, Any]) -> dict[str, Any]:
    return {
        "containerStatuses": [
            {"name": CONTAINER, "state": state, "ready": False, "restartCount": 0, "image": "x", "imageID": ""}
        ]
    }
