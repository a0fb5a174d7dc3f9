"""What matters of each watched object to a reconciliation, to tell events that matter from noise.

Two observations with equal facts lead to the same reconciliation, so the second needs none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

from controller.api.kube import CRON_JOBS, JOBS, PODS, POLICIES, REVOCATIONS, Kind
from controller.revocation.revocation_status import is_finished as is_finished_revocation
from controller.runs.pods import lost_node, start_problem, termination
from controller.runs.run_record import is_finished
from controller.status.policy_status import read_status
from policy.names import KIND, POLICY_LABEL, REVOCATION_LABEL, RUN_REQUEST_ANNOTATION, cron_job_name
from policy.revocation import SessionRevocationStatus

Body = Mapping[str, Any]

# No label value holds a slash: a policy cannot be named like a revocation.
_OF_REVOCATION: Final = "revocation/"


def facts(kind: Kind, body: Body) -> Hashable:
    """What matters of an object of this kind."""
    return _FACTS[kind](body)


def owner_label(kind: Kind, body: Body) -> str:
    """What an object has in common with the policy or revocation that it is or was made for; empty if with none."""
    if kind is POLICIES:
        return cron_job_name(body["metadata"]["name"])
    if kind is REVOCATIONS:
        return f"{_OF_REVOCATION}{body['metadata']['uid']}"
    if kind is CRON_JOBS and (policy := _controlling_policy(body)):
        return cron_job_name(policy)  # its label may have been changed by hand
    labels = body["metadata"].get("labels") or {}
    if uid := labels.get(REVOCATION_LABEL):
        return f"{_OF_REVOCATION}{uid}"
    label: str = labels.get(POLICY_LABEL, "")
    return label


def _controlling_policy(child: Body) -> str:
    owners = child["metadata"].get("ownerReferences") or []
    return next((owner["name"] for owner in owners if owner.get("controller") and owner.get("kind") == KIND), "")


def is_of_revocation(label: str) -> bool:
    """Whether an owner label is that of a revocation."""
    return label.startswith(_OF_REVOCATION)


def policy_facts(policy: Body) -> Hashable:
    """Identity, generation, run request. Not the status: the controller itself writes it."""
    metadata = policy["metadata"]
    return (
        metadata["uid"],
        metadata.get("generation"),
        (metadata.get("annotations") or {}).get(RUN_REQUEST_ANNOTATION),
        "deletionTimestamp" in metadata,
    )


def cron_job_facts(cron_job: Body) -> Hashable:
    """Identity, generation, what metadata can have drifted, and the last time it started a Job."""
    metadata = cron_job["metadata"]
    return (
        metadata["uid"],
        metadata.get("generation"),
        tuple(sorted((metadata.get("labels") or {}).items())),
        json.dumps(metadata.get("ownerReferences"), sort_keys=True),
        cron_job.get("status", {}).get("lastScheduleTime"),
        "deletionTimestamp" in metadata,
    )


def job_facts(job: Body) -> Hashable:
    """Identity, whether it is finished, and whether somebody suspended it."""
    return (job["metadata"]["uid"], is_finished(job), job.get("spec", {}).get("suspend", False))


def pod_facts(pod: Body) -> Hashable:
    """Identity, why it cannot start, whether its container ended, and what else may keep it from ending."""
    problem = start_problem(pod)
    return (
        pod["metadata"]["uid"],
        problem.reason if problem else None,
        termination(pod) is not None,
        "deletionTimestamp" in pod["metadata"],
        lost_node(pod) is not None,
    )


def revocation_facts(revocation: Body) -> Hashable:
    """Identity, and whether it has ended; its spec cannot change."""
    metadata = revocation["metadata"]
    return (metadata["uid"], "deletionTimestamp" in metadata, is_ended(revocation))


def is_ended(revocation: Body) -> bool:
    """Whether the revocation has ended, well or not."""
    return is_finished_revocation(read_status(SessionRevocationStatus, revocation))


_FACTS: Final[Mapping[Kind, Callable[[Body], Hashable]]] = {
    POLICIES: policy_facts,
    CRON_JOBS: cron_job_facts,
    JOBS: job_facts,
    PODS: pod_facts,
    REVOCATIONS: revocation_facts,
}
