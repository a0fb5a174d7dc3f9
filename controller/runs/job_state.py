"""What a Job's own fields say: whether and how it ended, what started it, and which Pod is its newest attempt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from controller.runs.pods import Pod, has_succeeded, is_disrupted, is_over
from policy.names import RUN_REQUEST_ANNOTATION
from policy.status import Trigger

Job = Mapping[str, Any]

LEADER: Final = 0
"""Index of the Pod that reports, in an Indexed Job. The others only help it."""

_INDEX_ANNOTATION: Final = "batch.kubernetes.io/job-completion-index"

# A policy cannot ask for more.
_MAX_WORKERS: Final = 16

MANUAL_ANNOTATION: Final = "cronjob.kubernetes.io/instantiate"


class JobEnd(NamedTuple):
    """How a Job ended.

    Attributes:
        succeeded: whether it is Complete, or its leader has succeeded.
        failure_reason: the reason of its Complete or Failed condition; may be empty.
        time: when.
    """

    succeeded: bool
    failure_reason: str
    time: datetime


def is_finished(job: Job) -> bool:
    """Whether the Job is Complete or Failed."""
    return job_end(job) is not None


def ended_at(job: Job) -> datetime | None:
    """When the Job became Complete or Failed; None if it is neither."""
    end = job_end(job)
    return end.time if end else None


def is_ending(job: Job) -> bool:
    """Whether it is decided that the Job fails: its Pods are being removed."""
    conditions = job.get("status", {}).get("conditions") or []
    return any(c["type"] == "FailureTarget" and c["status"] == "True" for c in conditions)


def trigger(job: Job) -> Trigger:
    """What started the run: the schedule, the annotation, or somebody manually."""
    annotations = job["metadata"].get("annotations") or {}
    if RUN_REQUEST_ANNOTATION in annotations:
        return Trigger.REQUEST
    if MANUAL_ANNOTATION in annotations:
        return Trigger.MANUAL
    return Trigger.SCHEDULE


def workers(job: Job) -> range:
    """The indexes of the Pods that an Indexed Job has at the same time; of any other Job, that of its only one."""
    return range(min(job["spec"].get("completions", 1), _MAX_WORKERS) if _is_indexed(job) else 1)


def last_attempt(job: Job, pods: Sequence[Pod], index: int = LEADER) -> Pod | None:
    """The newest of the Job's Pods; of an Indexed Job's, the newest with this index.

    Of a Job that has succeeded, the leader is the newest that has: Kubernetes may for a moment make one Pod too many,
    and then a run that has reported is not the newest.
    """
    uid = job["metadata"]["uid"]
    own = [pod for pod in pods if any(o["uid"] == uid for o in pod["metadata"].get("ownerReferences") or [])]
    if _is_indexed(job):
        own = [pod for pod in own if (pod["metadata"].get("annotations") or {}).get(_INDEX_ANNOTATION) == str(index)]
    end = job_end(job)
    if end is not None and end.succeeded and index == LEADER:
        own = [pod for pod in own if has_succeeded(pod)]
    return max(own, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]), default=None)


def job_end(job: Job) -> JobEnd | None:
    """How and when the Job ended; None while it has not.

    An Indexed Job has succeeded if its leader has, whatever became of its helpers.
    """
    for condition in job.get("status", {}).get("conditions") or []:
        if condition["status"] == "True" and condition["type"] in ("Complete", "Failed"):
            when = job["status"].get("completionTime") or condition["lastTransitionTime"]
            succeeded = condition["type"] == "Complete" or has_led(job)
            return JobEnd(succeeded, condition.get("reason") or "", datetime.fromisoformat(when))
    return None


def has_led(job: Job) -> bool:
    """Whether the Job is an Indexed one whose leader has succeeded."""
    # As in 0,2-4: intervals in their order.
    completed: str = job.get("status", {}).get("completedIndexes") or ""
    return _is_indexed(job) and completed.replace("-", ",").split(",")[0] == str(LEADER)


def has_all_pods(job: Job, pods: Sequence[Pod]) -> bool:
    """Whether these are all the Pods that the Job's outcome is judged from.

    Jobs and Pods arrive by separate watches, and either may be behind. The Job's status counts the Pods that ended,
    except for those that the node removed, which are no attempts. When in doubt, some are missing. Of an Indexed Job
    whose leader has succeeded, the Pods that were not needed any more are deleted: its leader's is enough.

    Args:
        job: the Job.
        pods: the Job's own Pods, as they were last seen.
    """
    if not is_finished(job):
        return True
    if has_led(job):
        return last_attempt(job, pods) is not None  # of such a Job, the Pod that succeeded
    status = job.get("status") or {}
    ended = sum(is_over(pod) and not is_disrupted(pod) for pod in pods)
    counted: int = status.get("succeeded", 0) + status.get("failed", 0)
    return ended >= counted


def _is_indexed(job: Job) -> bool:
    return bool(job.get("spec", {}).get("completionMode") == "Indexed")
