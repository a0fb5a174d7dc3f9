"""What keeps a Job that is not finished from going on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from controller.outcome import Job, is_ending, last_attempt
from controller.pods import Pod, Problem, start_problem
from policy.status import Condition

# The Job controller makes a Job's Pod at once, or somewhat later when it is busy. If there is none after this time,
# something forbids it.
_POD_CREATION_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How an unfinished Job stands.

    Attributes:
        stalled: why it cannot go on; None if it can.
        recheck_seconds: when to look again, where no event will tell.
    """

    stalled: Problem | None = None
    recheck_seconds: float | None = None


def progress(job: Job, pods: Sequence[Pod], stalled: Condition | None, now: datetime) -> Progress:
    """How the Job stands.

    Args:
        job: a Job that is not finished.
        pods: Pods that may be the Job's.
        stalled: the policy's Stalled condition until now. It holds on while the Job is being ended: the Pods go first,
            and it will be the only trace of the cause.
        now: the present.
    """
    pod = last_attempt(job, pods)
    known = stall_of_job(stalled, job)
    if known is not None and (pod is None or is_ending(job) or _is_being_deleted(pod)):
        return Progress(known)
    if pod is not None:
        return Progress(start_problem(pod))
    age = (now - datetime.fromisoformat(job["metadata"]["creationTimestamp"])).total_seconds()
    if age >= _POD_CREATION_SECONDS:
        return Progress(_pod_not_created(job))
    return Progress(recheck_seconds=_POD_CREATION_SECONDS - age)


def stall_of_job(stalled: Condition | None, job: Job) -> Problem | None:
    """The problem that stalls this very Job: the message names it, or one of its Pods."""
    name = job["metadata"]["name"]
    if stalled is None or not any(mark in stalled.message for mark in (f"Pod {name}-", f"Job {name} ")):
        return None
    return Problem(stalled.reason, stalled.message)


def _is_being_deleted(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _pod_not_created(job: Job) -> Problem:
    name = job["metadata"]["name"]
    return Problem(
        "PodNotCreated",
        f"no Pod could be created for Job {name} - a quota, Pod Security or an admission policy forbids it; "
        f"see kubectl describe job {name}",
    )
