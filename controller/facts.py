"""What matters of each watched object to a reconciliation, to tell events that matter from noise.

Two observations with equal facts lead to the same reconciliation, so the second needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

from controller.kube import CRON_JOBS, JOBS, PODS, POLICIES, Kind
from controller.outcome import is_finished
from controller.pods import lost_node, start_problem, termination
from policy.names import POLICY_LABEL, RUN_REQUEST_ANNOTATION, cron_job_name

Body = Mapping[str, Any]


def facts(kind: Kind, body: Body) -> Hashable:
    """What matters of an object of this kind."""
    return _FACTS[kind](body)


def owner_label(kind: Kind, body: Body) -> str:
    """The label value that leads from an object to its policy; empty if it has none. Of a policy: what leads to it."""
    if kind is POLICIES:
        return cron_job_name(body["metadata"]["name"])
    label: str = (body["metadata"].get("labels") or {}).get(POLICY_LABEL, "")
    return label


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
        tuple(sorted(owner["uid"] for owner in metadata.get("ownerReferences") or [])),
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


_FACTS: Final[Mapping[Kind, Callable[[Body], Hashable]]] = {
    POLICIES: policy_facts,
    CRON_JOBS: cron_job_facts,
    JOBS: job_facts,
    PODS: pod_facts,
}
