"""What keeps a Job that is not finished from going on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from controller.runs.pods import (
    Pod,
    Problem,
    ended_at,
    is_over,
    is_pending,
    lost_node,
    never_ran,
    start_problem,
    taken_at,
)
from controller.runs.run_record import LEADER, Job, is_ending, last_attempt, workers
from controller.runs.warning_events import REFUSED, Event, held_up, no_pod, refused_pod
from policy.status import Condition

# The Job controller makes a Job's Pod at once, or somewhat later when it is busy. After the first time it is asked
# what it has to say; if it says nothing, after the second time it is taken for unable to.
_POD_QUESTION_SECONDS: Final = 10.0
_POD_CREATION_SECONDS: Final = 60.0

# Volumes are mounted and the image is pulled within this time, mostly.
_CONTAINER_CREATION_SECONDS: Final = 60.0

# A Pod is gone a moment after its grace period, and a container is ready a moment after it runs.
_OVERDUE_SECONDS: Final = 60.0

# Events on other objects are not watched.
_RECHECK_SECONDS: Final = 60.0

_SUSPENDED: Final = "JobSuspended"


@dataclass(frozen=True, slots=True)
class Progress:
    """How an unfinished Job stands.

    Attributes:
        stalled: why it cannot go on; None if it can.
        recheck_seconds: when to look again, where no event will tell.
        unexplained_uid: UID of the Job or Pod whose Warning Events would tell more.
    """

    stalled: Problem | None = None
    recheck_seconds: float | None = None
    unexplained_uid: str | None = None


def progress(
    job: Job,
    pods: Sequence[Pod],
    stalled: Condition | None,
    now: datetime,
    warnings: Sequence[Event] | None = None,
) -> Progress:
    """How the Job stands.

    Args:
        job: a Job that is not finished.
        pods: Pods that may be the Job's.
        stalled: the policy's Stalled condition until now. It holds on while the Job is being ended: the Pods go first,
            and it will be the only trace of the cause.
        now: the present.
        warnings: the Events on what an earlier answer called unexplained; None before that.
    """
    attempts = {index: last_attempt(job, pods, index) for index in workers(job)}
    known = stall_of_job(stalled, job)
    if known is not None and (is_ending(job) or any(pod and _is_being_deleted(pod) for pod in attempts.values())):
        return Progress(known)
    if job.get("spec", {}).get("suspend"):
        return Progress(_suspended(job))

    def standing(index: int, told: Sequence[Event] | None) -> Progress:
        judge = _leader if index == LEADER else _helper
        return judge(job, attempts[index], known, now, told)

    found = {index: standing(index, None) for index in attempts}
    unexplained = next((p.unexplained_uid for p in found.values() if p.unexplained_uid), None)
    if unexplained and warnings is not None:
        found |= {i: standing(i, warnings) for i, p in found.items() if p.unexplained_uid == unexplained}
        unexplained = None
    rechecks = (p.recheck_seconds for p in found.values() if p.recheck_seconds is not None)
    return Progress(
        stalled=next((p.stalled for p in found.values() if p.stalled), None),  # the leader's first
        recheck_seconds=min(rechecks, default=None),
        unexplained_uid=unexplained,
    )


def _leader(
    job: Job, pod: Pod | None, known: Problem | None, now: datetime, warnings: Sequence[Event] | None
) -> Progress:
    """How the Pod stands that the run depends on: the only one, or that of an Indexed Job's first index."""
    if pod is None:
        if known is not None and known.reason not in REFUSED | {_SUSPENDED}:
            return Progress(known)  # its Pod is gone, and the Job will end
        return _without_pod(job, _time(job["metadata"]["creationTimestamp"]), known, now, warnings)
    if is_over(pod):
        found = _between_attempts(job, pod, known, now, warnings)
        # Its time ran out before its container ran: what it waited for is the cause of what comes now.
        return replace(found, stalled=found.stalled or start_problem(pod) or known) if never_ran(pod) else found
    return _with_pod(pod, now, warnings)


def _helper(
    job: Job, pod: Pod | None, known: Problem | None, now: datetime, warnings: Sequence[Event] | None
) -> Progress:
    """How another of an Indexed Job's Pods stands. The run goes on without it, but its author wanted it."""
    if pod is None:
        return _without_pod(job, _time(job["metadata"]["creationTimestamp"]), known, now, warnings)
    return Progress() if is_over(pod) else _with_pod(pod, now, warnings)


def stall_of_job(stalled: Condition | None, job: Job) -> Problem | None:
    """The problem that stalls this very Job: the message names it, or one of its Pods."""
    name = job["metadata"]["name"]
    if stalled is None or not any(mark in stalled.message for mark in (f"Pod {name}-", f"Job {name} ")):
        return None
    return Problem(stalled.reason, stalled.message)


def _without_pod(
    job: Job, since: datetime, known: Problem | None, now: datetime, warnings: Sequence[Event] | None
) -> Progress:
    age = (now - since).total_seconds()
    if age < _POD_QUESTION_SECONDS:
        return Progress(recheck_seconds=min(_POD_QUESTION_SECONDS - age, _POD_QUESTION_SECONDS))
    if warnings is None:
        return Progress(unexplained_uid=job["metadata"]["uid"])
    refused = refused_pod(job, warnings, since)
    if refused is None and known is not None and known.reason in REFUSED:
        refused = known  # Events are kept for an hour only
    if refused is not None:
        return Progress(refused, _RECHECK_SECONDS)
    if age >= _POD_CREATION_SECONDS:
        return Progress(no_pod(job), _RECHECK_SECONDS)
    return Progress(recheck_seconds=_POD_CREATION_SECONDS - age)


def _between_attempts(
    job: Job, pod: Pod, known: Problem | None, now: datetime, warnings: Sequence[Event] | None
) -> Progress:
    """The Job ends, or gets another Pod after a pause that is longer each time - if it may have one."""
    ended = ended_at(pod)
    age = (now - ended).total_seconds() if ended else _POD_QUESTION_SECONDS
    if age < _POD_QUESTION_SECONDS:
        return Progress(recheck_seconds=min(_POD_QUESTION_SECONDS - age, _POD_QUESTION_SECONDS))
    if warnings is None:
        return Progress(unexplained_uid=job["metadata"]["uid"])
    refused = refused_pod(job, warnings, _time(pod["metadata"]["creationTimestamp"]))
    if refused is None and known is not None and known.reason in REFUSED:
        refused = known
    return Progress(refused, _RECHECK_SECONDS)


def _with_pod(pod: Pod, now: datetime, warnings: Sequence[Event] | None) -> Progress:
    problem = start_problem(pod)
    if problem is not None:
        return Progress(problem)
    if _is_being_deleted(pod):
        return _later(_terminating(pod), _time(pod["metadata"]["deletionTimestamp"]), now)
    lost = lost_node(pod)
    if lost is not None:
        return _later(lost.problem, lost.since, now)
    taken = taken_at(pod)
    if taken is not None:
        return _without_container(pod, taken, now, warnings)
    # That a node takes the Pod is no news by itself; that it does nothing with it has to be found out.
    return Progress(recheck_seconds=_CONTAINER_CREATION_SECONDS if is_pending(pod) else None)


def _without_container(pod: Pod, taken: datetime, now: datetime, warnings: Sequence[Event] | None) -> Progress:
    age = (now - taken).total_seconds()
    if age < _CONTAINER_CREATION_SECONDS:
        return Progress(recheck_seconds=min(_CONTAINER_CREATION_SECONDS - age, _CONTAINER_CREATION_SECONDS))
    if warnings is None:
        return Progress(unexplained_uid=pod["metadata"]["uid"])
    # Nothing is said of a Pod without such Events: a large image takes its time.
    return Progress(held_up(pod, warnings, taken), _RECHECK_SECONDS)


def _later(problem: Problem, since: datetime, now: datetime) -> Progress:
    """The problem, once it has lasted long enough not to be a mere delay."""
    remaining = (since - now).total_seconds() + _OVERDUE_SECONDS
    return Progress(recheck_seconds=remaining) if remaining > 0 else Progress(problem)


def _is_being_deleted(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _suspended(job: Job) -> Problem:
    name = job["metadata"]["name"]
    return Problem(
        _SUSPENDED,
        f"Job {name} is suspended, by somebody or by a queue; if by nobody's wish, set its spec.suspend to false: "
        f"""kubectl patch job {name} --type=merge -p '{{"spec":{{"suspend":false}}}}'""",
    )


def _terminating(pod: Pod) -> Problem:
    name = pod["metadata"]["name"]
    node = pod.get("spec", {}).get("nodeName", "")
    return Problem(
        "PodTerminating",
        f"Pod {name} is to be deleted but node {node} does not end it; if the node is lost for good, "
        f"kubectl delete pod {name} --force",
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
