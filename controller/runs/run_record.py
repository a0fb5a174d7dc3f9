"""The record of a finished run in the policy's status, made from its Job and Pods.

What the container says is untrusted. Its report is parsed strictly, its times are replaced by the cluster's, and it can
make a run look worse than its Job did, but never better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from controller.runs.job_state import Job, JobEnd, job_end, last_attempt, trigger
from controller.runs.pods import (
    DEADLINE_EXCEEDED,
    Pod,
    Problem,
    end_problem,
    exit_problem,
    never_ran,
    start_problem,
    termination,
)
from controller.runs.termination_report import parse_report
from controller.settings import container_env
from policy.opentelemetry_env import samples
from policy.report import Outcome, RunReport
from policy.status import RunRecord
from policy.tracing import trace_id

_FAILED_AND_GONE: Final = Problem("PodsGone", "the Job failed and its Pods are gone, so the cause is not known")
_NO_REPORT: Final = Problem(
    "NoReport", "the container ended with exit code 0 but left no readable report; see the Pod's log"
)
_SUCCEEDED_AND_GONE: Final = Problem(
    "PodsGone", "the Job is complete but its Pods are gone, so what it did is not known"
)
_TOOK_TOO_LONG: Final = Problem(
    DEADLINE_EXCEEDED,
    "the Job's attempts took too long and it was stopped; raise spec.job.timeoutSeconds or lower the work of one run",
)


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
    """The attempt that :func:`run_record` is made from."""
    pod = last_attempt(job, pods)
    return Attempt(pod["metadata"]["uid"] if pod else "", _report(pod) is not None)


def run_record(
    job: Job, pods: Sequence[Pod], stalled: Problem | None = None, *, stands_in: bool = False
) -> RunRecord | None:
    """The record of a finished Job for the policy's status; None while it is not finished.

    Args:
        job: the Job.
        pods: Pods that may be the Job's; others are ignored.
        stalled: what stalled this Job when it was last checked. A Job that ends by its deadline takes its
            Pods, and with them the cause, away.
        stands_in: whether this controller writes the trace of a run that left no report.
    """
    end = job_end(job)
    if end is None:
        return None
    started = datetime.fromisoformat(job.get("status", {}).get("startTime") or job["metadata"]["creationTimestamp"])
    elapsed = max((end.time - started).total_seconds(), 0.0)
    pod = last_attempt(job, pods)
    report = _report(pod)
    if report is None:
        fields = _without_report(job, pod, end, stalled, stands_in=stands_in)
    else:
        fields = _from_report(report, job, pod, end)
    # A report of an attempt that outlasted its own Job is not to be believed.
    reported_seconds = report.duration_seconds if report and report.duration_seconds <= elapsed + 1 else elapsed
    return RunRecord(
        **fields
        | {
            "start_time": started,
            "completion_time": end.time,
            "duration_seconds": reported_seconds,
            "job_name": job["metadata"]["name"],
            "job_uid": job["metadata"]["uid"],
            "trigger": trigger(job),
        }
    )


def _from_report(report: RunReport, job: Job, pod: Pod | None, end: JobEnd) -> dict[str, Any]:
    """The record's fields from the container's report, which can make a run look worse than its Job, never better."""
    own_trace = trace_id(job["metadata"]["uid"])
    fields = dict(report) | {"trace_id": own_trace if report.trace_id == own_trace else None}
    if end.succeeded or report.outcome is Outcome.FAILED:
        return fields
    return fields | _outcome(Outcome.FAILED, failure_cause(pod, end.failure_reason, None))


def _without_report(
    job: Job, pod: Pod | None, end: JobEnd, stalled: Problem | None, *, stands_in: bool
) -> dict[str, Any]:
    """The record's fields from what the cluster shows, of a run that left no readable report."""
    own_trace = trace_id(job["metadata"]["uid"])
    traced = stands_in and samples(container_env.variables(_pod_spec(job)), own_trace)
    generation, dry_run = _generation_and_dry_run(job)
    fields = {"policy_generation": generation, "dry_run": dry_run, "trace_id": own_trace if traced else None}
    if end.succeeded:
        return fields | _outcome(Outcome.DEGRADED, _NO_REPORT if pod else _SUCCEEDED_AND_GONE)
    return fields | _outcome(Outcome.FAILED, failure_cause(pod, end.failure_reason, stalled))


def _outcome(outcome: Outcome, problem: Problem) -> dict[str, Any]:
    return {"outcome": outcome, "reason": problem.reason, "message": problem.message}


def failure_cause(pod: Pod | None, failure_reason: str, stalled: Problem | None) -> Problem:
    """Why a Job failed: the first cause that is known, the most specific first."""
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
        return stalled or _TOOK_TOO_LONG
    return stalled or _FAILED_AND_GONE


def _generation_and_dry_run(job: Job) -> tuple[int | None, bool]:
    """Both as the policy in the container's environment says; None and False where that cannot be read."""
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
    return parse_report(RunReport, ended.message) if ended else None
