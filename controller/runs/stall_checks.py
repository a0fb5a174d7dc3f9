"""Whether an unfinished Job can go on: an ordered chain of small checks, of which the first hit decides.

Kubernetes tells the cause of some stalls in Events only, and those are not watched: a check that needs them names the
object, and is asked again with its Events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from controller.runs.job_state import LEADER, Job, is_ending, last_attempt, workers
from controller.runs.pods import (
    Pod,
    Problem,
    ended_at,
    is_over,
    is_pending,
    lost_node,
    never_ran,
    scheduled_at,
    start_problem,
)
from controller.runs.warning_events import NO_POD_REASONS, Event, container_blocked, pod_missing, pod_refused

# The Job controller makes a Job's Pod at once, or somewhat later when it is busy. After the first time its Events are
# read; if they say nothing, after the second time the Job is taken for stalled.
_POD_EVENTS_SECONDS: Final = 10.0
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
    """Whether an unfinished Job can go on.

    Attributes:
        stalled: why it cannot; None if it can.
        recheck_seconds: when to check again, where no event will tell.
        unexplained_uid: UID of the Job or Pod whose Warning Events would tell more.
    """

    stalled: Problem | None = None
    recheck_seconds: float | None = None
    unexplained_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Input:
    """What the checks of one of a Job's Pods look at.

    Attributes:
        job: a Job that is not finished.
        pod: its newest attempt; None if there is none.
        is_leader: whether the run depends on it. An Indexed Job goes on without its other Pods.
        known: what stalled this Job until now.
        now: the present.
        warnings: the Warning Events on what an earlier answer called unexplained; None before that.
    """

    job: Job
    pod: Pod | None
    is_leader: bool
    known: Problem | None
    now: datetime
    warnings: Sequence[Event] | None

    def seconds_since(self, time: datetime) -> float:
        """How long ago something was."""
        return (self.now - time).total_seconds()


Check = Callable[[Input], Progress | None]
"""Decides, or returns None to leave it to the next check."""


def check_progress(
    job: Job,
    pods: Sequence[Pod],
    known: Problem | None,
    now: datetime,
    warnings: Sequence[Event] | None = None,
) -> Progress:
    """Whether the Job can go on.

    Args:
        job: a Job that is not finished.
        pods: Pods that may be the Job's.
        known: what stalled this very Job when it was last checked. It is kept while the Job is being ended: its Pods
            are deleted first, and this is the only trace of the cause.
        now: the present.
        warnings: the Events on what an earlier answer called unexplained; None before that.
    """
    attempts = {index: last_attempt(job, pods, index) for index in workers(job)}
    if known is not None and (is_ending(job) or any(pod and _is_being_deleted(pod) for pod in attempts.values())):
        return Progress(known)
    if job.get("spec", {}).get("suspend"):
        return Progress(_suspended(job))
    inputs = [Input(job, pod, index == LEADER, known, now, None) for index, pod in attempts.items()]
    found = [_first_hit(each) for each in inputs]
    unexplained = next((p.unexplained_uid for p in found if p.unexplained_uid), None)
    if unexplained and warnings is not None:
        found = [
            _first_hit(replace(each, warnings=warnings)) if p.unexplained_uid == unexplained else p
            for each, p in zip(inputs, found, strict=True)
        ]
        unexplained = None
    return Progress(
        stalled=next((p.stalled for p in found if p.stalled), None),  # the leader's first
        recheck_seconds=min((p.recheck_seconds for p in found if p.recheck_seconds is not None), default=None),
        unexplained_uid=unexplained,
    )


def _first_hit(seen: Input) -> Progress:
    return next((hit for check in _CHECKS if (hit := check(seen)) is not None), Progress())


# --- the checks ------------------------------------------------------------------------------------------------------


def _pod_deleted_after_stall(seen: Input) -> Progress | None:
    """The Pod that could not start is gone, and the Job will end: the cause is kept until then."""
    if seen.pod is not None or not seen.is_leader or seen.known is None:
        return None
    return None if seen.known.reason in NO_POD_REASONS | {_SUSPENDED} else Progress(seen.known)


def _pod_not_created(seen: Input) -> Progress | None:
    if seen.pod is not None:
        return None
    created = datetime.fromisoformat(seen.job["metadata"]["creationTimestamp"])
    age = seen.seconds_since(created)
    if age < _POD_EVENTS_SECONDS:
        return _recheck_at(_POD_EVENTS_SECONDS, age)
    if seen.warnings is None:
        return Progress(unexplained_uid=seen.job["metadata"]["uid"])
    if refusal := _refusal(seen, seen.warnings, created):
        return Progress(refusal, _RECHECK_SECONDS)
    if age >= _POD_CREATION_SECONDS:
        return Progress(pod_missing(seen.job), _RECHECK_SECONDS)
    return _recheck_at(_POD_CREATION_SECONDS, age)


def _helper_ended(seen: Input) -> Progress | None:
    return Progress() if seen.pod is not None and not seen.is_leader and is_over(seen.pod) else None


def _next_attempt_not_created(seen: Input) -> Progress | None:
    """The Job ends, or gets another Pod after a back-off; no problem unless that Pod is refused."""
    if seen.pod is None or not is_over(seen.pod):
        return None
    # A Pod whose time ran out before its container ran: what it waited for is the cause of what comes now.
    cause = start_problem(seen.pod) or seen.known if never_ran(seen.pod) else None
    ended = ended_at(seen.pod)
    age = seen.seconds_since(ended) if ended else _POD_EVENTS_SECONDS
    if age < _POD_EVENTS_SECONDS:
        return replace(_recheck_at(_POD_EVENTS_SECONDS, age), stalled=cause)
    if seen.warnings is None:
        return Progress(cause, unexplained_uid=seen.job["metadata"]["uid"])
    created = datetime.fromisoformat(seen.pod["metadata"]["creationTimestamp"])
    return Progress(_refusal(seen, seen.warnings, created) or cause, _RECHECK_SECONDS)


def _container_cannot_start(seen: Input) -> Progress | None:
    problem = start_problem(seen.pod) if seen.pod else None
    return Progress(problem) if problem else None


def _deletion_overdue(seen: Input) -> Progress | None:
    if seen.pod is None or not _is_being_deleted(seen.pod):
        return None
    due = datetime.fromisoformat(seen.pod["metadata"]["deletionTimestamp"])
    return _if_overdue(_terminating(seen.pod), due, seen.now)


def _node_lost(seen: Input) -> Progress | None:
    lost = lost_node(seen.pod) if seen.pod else None
    return _if_overdue(lost.problem, lost.since, seen.now) if lost else None


def _container_not_created(seen: Input) -> Progress | None:
    scheduled = scheduled_at(seen.pod) if seen.pod else None
    if seen.pod is None or scheduled is None:
        return None
    age = seen.seconds_since(scheduled)
    if age < _CONTAINER_CREATION_SECONDS:
        return _recheck_at(_CONTAINER_CREATION_SECONDS, age)
    if seen.warnings is None:
        return Progress(unexplained_uid=seen.pod["metadata"]["uid"])
    # A Pod without such Events is not stalled: a large image takes its time.
    return Progress(container_blocked(seen.pod, seen.warnings, scheduled), _RECHECK_SECONDS)


def _waits_for_node(seen: Input) -> Progress | None:
    # That a node is assigned is no relevant event by itself; whether it starts the container has to be found out.
    is_waiting = seen.pod is not None and is_pending(seen.pod)
    return Progress(recheck_seconds=_CONTAINER_CREATION_SECONDS) if is_waiting else None


_CHECKS: Final[tuple[Check, ...]] = (
    _pod_deleted_after_stall,
    _pod_not_created,
    _helper_ended,
    _next_attempt_not_created,
    _container_cannot_start,
    _deletion_overdue,
    _node_lost,
    _container_not_created,
    _waits_for_node,
)
"""In this order, for each of the Job's Pods; a Pod that no check hits is running."""


# --- what they have in common ----------------------------------------------------------------------------------------


def _recheck_at(age_seconds: float, age: float) -> Progress:
    """Check again at this age; a clock that is behind must not put that off."""
    return Progress(recheck_seconds=min(age_seconds - age, age_seconds))


def _if_overdue(problem: Problem, since: datetime, now: datetime) -> Progress:
    """The problem, once it has lasted long enough not to be a mere delay."""
    remaining = (since - now).total_seconds() + _OVERDUE_SECONDS
    return Progress(recheck_seconds=remaining) if remaining > 0 else Progress(problem)


def _refusal(seen: Input, warnings: Sequence[Event], since: datetime) -> Problem | None:
    """Why the Job gets no Pod; Events are kept for an hour only, so what is known already outlives them."""
    found = pod_refused(seen.job, warnings, since)
    if found is None and seen.known is not None and seen.known.reason in NO_POD_REASONS:
        return seen.known
    return found


def _is_being_deleted(pod: Pod) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _suspended(job: Job) -> Problem:
    name = job["metadata"]["name"]
    return Problem(
        _SUSPENDED,
        f"Job {name} is suspended, by somebody or by a queue; unless that is intended, resume it: "
        f"""kubectl patch job {name} --type=merge -p '{{"spec":{{"suspend":false}}}}'""",
    )


def _terminating(pod: Pod) -> Problem:
    name = pod["metadata"]["name"]
    node = pod.get("spec", {}).get("nodeName", "")
    return Problem(
        "PodTerminating",
        f"Pod {name} should have been deleted, but node {node} does not end it; if the node is lost for good, "
        f"kubectl delete pod {name} --force",
    )
