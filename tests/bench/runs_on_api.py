"""Finished runs, as a node would leave them: a Job that no controller touches, and its Pod with the report."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from policy.names import CONTAINER_NAME
from tests.bench.api_client import ApiClient
from tests.controlplane.kubelet import REPORT

Resource = dict[str, Any]


class RunOnApi:
    """One run of a policy, made in two steps so that its end can be timed."""

    def __init__(self, api: ApiClient, cron_job: Resource, number: int) -> None:
        self._api = api
        self._cron_job = cron_job
        self._namespace: str = cron_job["metadata"]["namespace"]
        self._name = f"{cron_job['metadata']['name']}-{number:08d}"
        self.uid = ""

    async def begin(self) -> None:
        """Create the Job and its Pod, and let the Pod end."""
        owner = self._cron_job["metadata"]
        job = await self._api.request(
            "POST",
            f"/apis/batch/v1/namespaces/{self._namespace}/jobs",
            {
                "metadata": {
                    "name": self._name,
                    "labels": self._cron_job["spec"]["jobTemplate"]["metadata"]["labels"],
                    "ownerReferences": [_owner("CronJob", owner)],
                },
                # The Job controller leaves it alone, and the status is ours to write.
                "spec": self._cron_job["spec"]["jobTemplate"]["spec"] | {"managedBy": "sessionpolicy.dev/bench"},
            },
        )
        self.uid = job["metadata"]["uid"]
        template = job["spec"]["template"]
        pods = f"/api/v1/namespaces/{self._namespace}/pods"
        await self._api.request(
            "POST",
            pods,
            {
                "metadata": {
                    "name": self._name,
                    "labels": template["metadata"]["labels"],
                    "ownerReferences": [_owner("Job", job["metadata"])],
                },
                "spec": template["spec"] | {"nodeName": "bench"},
            },
        )
        now = _now()
        ended = {
            "exitCode": 0,
            "reason": "Completed",
            "message": json.dumps(REPORT),
            "startedAt": now,
            "finishedAt": now,
        }
        container = {
            "name": CONTAINER_NAME,
            "state": {"terminated": ended},
            "ready": False,
            "restartCount": 0,
            "image": "x",
            "imageID": "",
        }
        status = {"phase": "Succeeded", "containerStatuses": [container]}
        await self._api.request("PATCH", f"{pods}/{self._name}/status", {"status": status})

    async def end(self) -> None:
        """The Job is complete."""
        now = _now()
        condition = {"status": "True", "lastTransitionTime": now, "lastProbeTime": now, "reason": "CompletionsReached"}
        await self._api.request(
            "PATCH",
            f"/apis/batch/v1/namespaces/{self._namespace}/jobs/{self._name}/status",
            {
                "status": {
                    "startTime": now,
                    "completionTime": now,
                    "succeeded": 1,
                    "ready": 0,
                    "terminating": 0,
                    "uncountedTerminatedPods": {},
                    "conditions": [
                        condition | {"type": "SuccessCriteriaMet"},
                        condition | {"type": "Complete"},
                    ],
                }
            },
        )


def _owner(kind: str, metadata: Resource) -> Resource:
    return {
        "apiVersion": "batch/v1",
        "kind": kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
