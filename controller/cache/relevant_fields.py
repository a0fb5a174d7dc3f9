"""The fields of each watched object that a reconciliation depends on; a change of any other needs none.

What predicates are in controller-runtime: an event that changes none of these fields is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

from controller.api.kube import CRON_JOBS, JOBS, PODS, POLICIES, REVOCATIONS, Kind
from controller.revocation.revocation_status import is_finished as is_finished_revocation
from controller.runs.job_state import is_finished
from controller.runs.pods import lost_node, start_problem, termination
from controller.status.policy_status import read_status
from policy.names import RUN_REQUEST_ANNOTATION
from policy.revocation import SessionRevocationStatus

Body = Mapping[str, Any]


def relevant_fields(kind: Kind, body: Body) -> Hashable:
    """The fields of an object of this kind, to compare with those of another state of it."""
    return _RELEVANT_FIELDS[kind](body)


def policy_fields(policy: Body) -> Hashable:
    """UID, generation, run request. Not the status: the controller itself writes it."""
    metadata = policy["metadata"]
    return (
        metadata["uid"],
        metadata.get("generation"),
        (metadata.get("annotations") or {}).get(RUN_REQUEST_ANNOTATION),
        "deletionTimestamp" in metadata,
    )


def cron_job_fields(cron_job: Body) -> Hashable:
    """UID, generation, what metadata can have drifted, and the last time it started a Job."""
    metadata = cron_job["metadata"]
    return (
        metadata["uid"],
        metadata.get("generation"),
        tuple(sorted((metadata.get("labels") or {}).items())),
        json.dumps(metadata.get("ownerReferences"), sort_keys=True),
        cron_job.get("status", {}).get("lastScheduleTime"),
        "deletionTimestamp" in metadata,
    )


def job_fields(job: Body) -> Hashable:
    """UID, whether it is finished, and whether somebody suspended it."""
    return (job["metadata"]["uid"], is_finished(job), job.get("spec", {}).get("suspend", False))


def pod_fields(pod: Body) -> Hashable:
    """UID, why it cannot start, whether its container ended, and what else may keep it from ending."""
    problem = start_problem(pod)
    return (
        pod["metadata"]["uid"],
        problem.reason if problem else None,
        termination(pod) is not None,
        "deletionTimestamp" in pod["metadata"],
        lost_node(pod) is not None,
    )


def revocation_fields(revocation: Body) -> Hashable:
    """UID, and whether it has ended; its spec cannot change."""
    metadata = revocation["metadata"]
    return (metadata["uid"], "deletionTimestamp" in metadata, is_ended(revocation))


def is_ended(revocation: Body) -> bool:
    """Whether the revocation has ended, successfully or not."""
    return is_finished_revocation(read_status(SessionRevocationStatus, revocation))


_RELEVANT_FIELDS: Final[Mapping[Kind, Callable[[Body], Hashable]]] = {
    POLICIES: policy_fields,
    CRON_JOBS: cron_job_fields,
    JOBS: job_fields,
    PODS: pod_fields,
    REVOCATIONS: revocation_fields,
}
