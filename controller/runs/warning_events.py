"""Causes in Warning Events: why no Pod could be created for a Job, or no container in a Pod.

Events are the only place where Kubernetes tells them. Whoever may create Events can forge one: only those that name
Kubernetes' own components count, a message is one cleaned line of bounded length, and the reasons are this operator's.
A Pod's manifest holds no Secret's value, and so neither does a message about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from controller.runs.pods import Pod, Problem
from policy.report import printable

Event = Mapping[str, Any]

_JOB_CONTROLLER: Final = frozenset({"job-controller"})
_NODE: Final = frozenset({"kubelet", "attachdetach-controller"})
_HELD_UP: Final = frozenset({"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"})
_MAX_WORDS: Final = 240


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A kind of refusal, recognised by the API server's message: the Event's reason is the same for all."""

    marks: tuple[str, ...]
    reason: str
    advice: str


_REFUSALS: Final = (
    _Refusal(
        ("exceeded quota:", "failed quota:", "status unknown for quota:"),
        "QuotaExceeded",
        "raise the namespace's ResourceQuota, or lower spec.job.resources",
    ),
    _Refusal(
        ("violates PodSecurity",),
        "PodSecurity",
        "the operator's Pods meet the restricted standard: look for a webhook that changes them",
    ),
    _Refusal(
        ("admission webhook", "ValidatingAdmissionPolicy", "denied the request"),
        "AdmissionDenied",
        "ask the cluster's administrators to admit this Pod, or adapt it to their policy",
    ),
)

NOT_CREATED: Final = "PodNotCreated"

NO_POD_REASONS: Final = frozenset({NOT_CREATED, *(refusal.reason for refusal in _REFUSALS)})
"""The reasons for which no Pod can be created for a Job."""


def pod_refused(job: Mapping[str, Any], warnings: Sequence[Event], since: datetime) -> Problem | None:
    """Why no Pod could be created for the Job; None if its Events do not say.

    Args:
        job: a Job without a Pod that could still run.
        warnings: Events on this Job.
        since: when its last Pod was created, or the Job itself; older Events do not count.
    """
    message = _newest(warnings, frozenset({"FailedCreate"}), _JOB_CONTROLLER, since)
    if message is None:
        return None
    name = job["metadata"]["name"]
    # Before these words is a Pod's name, which differs at each attempt.
    words = printable(message.rpartition(" is forbidden: ")[2].removeprefix("Error creating: "), _MAX_WORDS)
    for refusal in _REFUSALS:
        if any(mark in words for mark in refusal.marks):
            return Problem(refusal.reason, _refused(name, words, refusal.advice))
    return Problem(NOT_CREATED, _refused(name, words, f"remove the cause; see kubectl describe job {name}"))


def pod_missing(job: Mapping[str, Any]) -> Problem:
    """The problem of a Job without a Pod whose Events do not tell why."""
    name = job["metadata"]["name"]
    return Problem(
        NOT_CREATED,
        f"no Pod was created for Job {name}: a quota, Pod Security or an admission policy forbids it, or "
        f"kube-controller-manager does not run; see kubectl describe job {name}",
    )


def container_blocked(pod: Pod, warnings: Sequence[Event], since: datetime) -> Problem | None:
    """Why the Pod's container has not been created; None if its Events do not say.

    Args:
        pod: a Pod that is assigned to a node.
        warnings: Events on this Pod.
        since: when it was.
    """
    newest = max(
        (e for e in warnings if _counts(e, _HELD_UP, _NODE, since)), key=lambda e: (_time(e), e["reason"]), default=None
    )
    if newest is None:
        return None
    words = printable(newest.get("message") or "", _MAX_WORDS)
    return Problem(
        newest["reason"],
        f"the container of Pod {pod['metadata']['name']} cannot be created: {words}; "
        "check the PersistentVolumeClaim that spec.logs.volumeClaim names, and the node",
    )


def _refused(job: str, words: str, advice: str) -> str:
    return f"no Pod could be created for Job {job}: {words.rstrip('.')}; {advice}"


def _newest(
    events: Iterable[Event], reasons: frozenset[str], components: frozenset[str], since: datetime
) -> str | None:
    found = max((e for e in events if _counts(e, reasons, components, since)), key=_time, default=None)
    return (found.get("message") or "") if found else None


def _counts(event: Event, reasons: frozenset[str], components: frozenset[str], since: datetime) -> bool:
    component = (event.get("source") or {}).get("component") or event.get("reportingComponent")
    return event.get("reason") in reasons and component in components and _time(event) >= since


def _time(event: Event) -> datetime:
    series = event.get("series") or {}
    time = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return datetime.fromisoformat(time or event["metadata"]["creationTimestamp"])
