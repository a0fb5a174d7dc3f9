"""What became of a run: from its Job and Pods to the record in the policy's status.

What the container says is untrusted. Its report is parsed strictly, its times are replaced by the cluster's, and it can
make a run look worse than its Job did, but never better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from controller.runs.pods import (
    DEADLINE_EXCEEDED,
    Pod,
    Problem,
    end_problem,
    exit_problem,
    has_succeeded,
    never_ran,
    start_problem,
    termination,
)
from controller.settings import container_env
from policy.names import RUN_REQUEST_ANNOTATION
from policy.opentelemetry_env import samples
from policy.report import Outcome, RunReport
from policy.status import RunRecord, Trigger
from policy.tracing import trace_id

Job = Mapping[str, Any]

LEADER: Final = 0
"""Index of the Pod that reports, in an Indexed Job. The others only help it."""

_INDEX_ANNOTATION: Final = "batch.kubernetes.io/job-completion-index"

# A policy cannot ask for more.
_MAX_WORKERS: Final = 16

MANUAL_ANNOTATION: Final = "cronjob.kubernetes.io/instantiate"

# What the kubelet keeps of a termination message.
_MAX_REPORT_BYTES: Final = 4096

_GONE: Final = Problem("PodsGone", "the Job failed and its Pods are gone, so the cause is not known")
_UNREPORTED: Final = Problem(
    "NoReport", "the container ended with exit code 0 but left no readable report; see the Pod's log"
)
_UNKNOWN: Final = Problem("PodsGone", "the Job is complete but its Pods are gone, so what it did is not known")
_LATE: Final = Problem(
    DEADLINE_EXCEEDED,
    "the Job's attempts took too long and it was stopped; raise spec.job.timeoutSeconds or lower the work of one run",
)


def is_finished(job: Job) -> bool:
    """Whether the Job is Complete or Failed."""
    return job_end(job) is not None


def ended_at(job: Job) -> datetime | None:
    """When the Job became Complete or Failed; None if it is neither."""
    end = job_end(job)
    return end[2] if end else None


def is_ending(job: Job) -> bool:
    """Whether it is decided that the Job fails: its Pods are being removed."""
    conditions = job.get("status", {}).get("conditions") or []
    return any(c["type"] == "FailureTarget" and c["status"] == "True" for c in conditions)


def trigger(job: Job) -> Trigger:
    """What made the Job."""
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
    if end is not None and end[0] and index == LEADER:
        own = [pod for pod in own if has_succeeded(pod)]
    return max(own, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]), default=None)


def parse_report(message: str) -> RunReport | None:
    """The report in a termination message; None if it is anything but a valid report."""
    if len(message.encode(errors="replace")) > _MAX_REPORT_BYTES:
        return None
    try:
        return RunReport.model_validate_json(message, strict=True, by_alias=True, by_name=False)
    except ValidationError:
        return None


@dataclass(frozen=True, slots=True)
class Attempt:
    """The Pod that a run's record is made from.

    Attributes:
        pod_uid: its UID; empty if there is none any more.
        reported: whether it left a readable report.
    """

    pod_uid: str
    reported: bool


def recorded_attempt(job: Job, pods: Sequence[Pod]) -> Attempt:
    """The attempt that :func:`run_record` tells of."""
    pod = last_attempt(job, pods)
    return Attempt(pod["metadata"]["uid"] if pod else "", _report(pod) is not None)


def run_record(
    job: Job, pods: Sequence[Pod], stalled: Problem | None = None, *, stands_in: bool = False
) -> RunRecord | None:
    """The record of a finished Job; None while it is not finished.

    Args:
        job: the Job.
        pods: Pods that may be the Job's; others are ignored.
        stalled: what kept this Job from going on when it was last looked at. A Job that ends by its deadline takes its
            Pods, and with them the cause, away.
        stands_in: whether this controller writes the trace of a run that left no report.
    """
    end = job_end(job)
    if end is None:
        return None
    succeeded, failure_reason, completed = end
    started = _time(job.get("status", {}).get("startTime") or job["metadata"]["creationTimestamp"])
    elapsed = max((completed - started).total_seconds(), 0.0)
    pod = last_attempt(job, pods)
    report = _report(pod)
    uid = job["metadata"]["uid"]
    own_trace = trace_id(uid)

    if report is None:
        problem = _unreported(pod) if succeeded else failure_cause(pod, failure_reason, stalled)
        outcome = Outcome.DEGRADED if succeeded else Outcome.FAILED
        generation, dry_run = _obeyed(job)
        said: dict[str, Any] = {"policy_generation": generation, "dry_run": dry_run}
        traced = stands_in and samples(container_env.variables(_pod_spec(job)), own_trace)
    else:
        said = dict(report)
        traced = report.trace_id == own_trace
        outcome, problem = report.outcome, Problem(report.reason, report.message)
        if not succeeded and outcome is not Outcome.FAILED:
            outcome, problem = Outcome.FAILED, failure_cause(pod, failure_reason, None)
    reported_duration = report.duration_seconds if report else elapsed
    return RunRecord(
        **said
        | {
            "outcome": outcome,
            "reason": problem.reason,
            "message": problem.message,
            "start_time": started,
            "completion_time": completed,
            # A report of an attempt that outlasted its own Job is not to be believed.
            "duration_seconds": reported_duration if reported_duration <= elapsed + 1 else elapsed,
            "job_name": job["metadata"]["name"],
            "job_uid": uid,
            "trigger": trigger(job),
            "trace_id": own_trace if traced else None,
        }
    )


def job_end(job: Job) -> tuple[bool, str, datetime] | None:
    """Whether the Job succeeded, the failure's reason, and when it ended; None while it has not.

    An Indexed Job has succeeded where its leader has, whatever became of its helpers.
    """
    for condition in job.get("status", {}).get("conditions") or []:
        if condition["status"] == "True" and condition["type"] in ("Complete", "Failed"):
            when = job["status"].get("completionTime") or condition["lastTransitionTime"]
            succeeded = condition["type"] == "Complete" or has_led(job)
            return succeeded, condition.get("reason") or "", _time(when)
    return None


def has_led(job: Job) -> bool:
    """Whether the Job is an Indexed one whose leader has succeeded."""
    # As in 0,2-4: intervals in their order.
    completed: str = job.get("status", {}).get("completedIndexes") or ""
    return _is_indexed(job) and completed.replace("-", ",").split(",")[0] == str(LEADER)


def _is_indexed(job: Job) -> bool:
    return bool(job.get("spec", {}).get("completionMode") == "Indexed")


def failure_cause(pod: Pod | None, failure_reason: str, stalled: Problem | None) -> Problem:
    """Why a Job failed: the first that is known, from the most telling to the least."""
    if pod:
        ended = termination(pod)
        known = end_problem(pod) or start_problem(pod)
        if never_ran(pod) and known and known.reason == DEADLINE_EXCEEDED:
            # What kept the container from running tells more than that it took too long.
            return start_problem(pod) or stalled or known
        if known is None and ended and not never_ran(pod):
            known = exit_problem(ended)
        if known:
            return known
    if failure_reason == DEADLINE_EXCEEDED:
        return stalled or _LATE
    return stalled or _GONE


def _unreported(pod: Pod | None) -> Problem:
    return _UNREPORTED if pod else _UNKNOWN


def _obeyed(job: Job) -> tuple[int | None, bool]:
    """Generation and dry run of the policy as it was handed to the Job."""
    manifest = container_env.policy(_pod_spec(job))
    try:
        return manifest["metadata"].get("generation"), manifest["spec"].get("dryRun", False) is True
    except (KeyError, TypeError, AttributeError):
        return None, False


def _pod_spec(job: Job) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = job.get("spec", {}).get("template", {}).get("spec", {})
    return spec


def _report(pod: Pod | None) -> RunReport | None:
    ended = termination(pod) if pod else None
    return parse_report(ended.message) if ended else None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
