"""Problems that a Pod's status shows: why its container cannot start, or did not end well."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from policy.exit_codes import EXIT_BAD_CONFIGURATION
from policy.names import CONTAINER_NAME
from policy.report import printable

Pod = Mapping[str, Any]

_IMAGE_REASONS: Final = frozenset(
    {
        "ImagePullBackOff",
        "ErrImagePull",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_START_REASONS: Final = frozenset({"CreateContainerError", "RunContainerError", "StartError", "ContainerCannotRun"})
_NOT_YET: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
_SIGKILL_EXIT_CODE: Final = 137

# The kubelet's reason for a container that it does not find when it ends the Pod, usually because it never started.
_NOT_FOUND: Final = "ContainerStatusUnknown"

DEADLINE_EXCEEDED: Final = "DeadlineExceeded"
"""Reason of a Pod or Job that was stopped because it took too long."""

_DISRUPTED: Final = "the Pod was removed from its node: drained, preempted or lost"
_DISRUPTIONS: Final = {
    "PreemptionByScheduler": "the Pod was preempted by one of higher priority; "
    "give the operator's jobs a priority class of their own",
    "DeletionByTaintManager": "the Pod was removed because its node was tainted, for instance because it was lost",
    "EvictionByEvictionAPI": "the Pod was removed because its node was drained",
    "DeletionByPodGC": "the Pod was removed because its node is gone",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a run cannot go on, or did not end well.

    Attributes:
        reason: one CamelCase word.
        message: for people, with what to do about it.
    """

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class LostNode:
    """A Pod whose node has stopped reporting to the API server.

    Attributes:
        problem: the message for people.
        since: when the Pod was marked not ready.
    """

    problem: Problem
    since: datetime


@dataclass(frozen=True, slots=True)
class Termination:
    """How the container ended, as the kubelet saw it."""

    exit_code: int
    reason: str
    message: str


def termination(pod: Pod) -> Termination | None:
    """How the cleanup container ended; None if it has not, or never started."""
    ended = _container_state(pod).get("terminated")
    if not ended:
        return None
    return Termination(int(ended.get("exitCode", -1)), ended.get("reason") or "", ended.get("message") or "")


def never_ran(pod: Pod) -> bool:
    """Whether the Pod's container is known not to have run, or to have been lost.

    A kubelet that ends a Pod first leaves a waiting container as it is; later it reports that there is none.
    """
    state = _container_state(pod)
    return "waiting" in state or (state.get("terminated") or {}).get("reason") == _NOT_FOUND


def start_problem(pod: Pod) -> Problem | None:
    """Why the Pod's container cannot start, as long as that is so."""
    return _first(_START_CHECKS, pod)


def is_pending(pod: Pod) -> bool:
    """Whether the Pod waits for a node, or for its container."""
    return bool(pod.get("status", {}).get("phase") == "Pending")


def is_over(pod: Pod) -> bool:
    """Whether the Pod has ended, successfully or not."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def has_succeeded(pod: Pod) -> bool:
    """Whether the Pod has succeeded."""
    return bool(pod.get("status", {}).get("phase") == "Succeeded")


def ended_at(pod: Pod) -> datetime | None:
    """When the Pod's container ended, if that is known."""
    return _time((_container_state(pod).get("terminated") or {}).get("finishedAt"))


def scheduled_at(pod: Pod) -> datetime | None:
    """When the Pod was assigned to a node; None if it was not, or if its container has been created since."""
    scheduled = _condition(pod, "PodScheduled")
    if not is_pending(pod) or scheduled.get("status") != "True":
        return None
    return _time(scheduled.get("lastTransitionTime")) if _waiting_reason(pod) in _NOT_YET else None


def lost_node(pod: Pod) -> LostNode | None:
    """Set if the Pod's node has stopped reporting: its Pods are marked not ready, although their containers run."""
    ready = _condition(pod, "Ready")
    since = _time(ready.get("lastTransitionTime"))
    if "running" not in _container_state(pod) or ready.get("status") != "False" or since is None:
        return None
    name, node = pod["metadata"]["name"], pod.get("spec", {}).get("nodeName", "")
    message = f"node {node}, where Pod {name} runs, has stopped reporting; see kubectl describe node {node}"
    return LostNode(Problem("NodeLost", message), since)


def is_disrupted(pod: Pod) -> bool:
    """Whether the Pod was removed from its node before it could end."""
    return _condition(pod, "DisruptionTarget").get("status") == "True"


def end_problem(pod: Pod) -> Problem | None:
    """Why the Pod did not end well, where its state tells more than the container's exit code."""
    return _first(_END_CHECKS, pod)


def exit_problem(ended: Termination) -> Problem:
    """The problem that an exit code stands for, where the container left no readable report."""
    if ended.exit_code == EXIT_BAD_CONFIGURATION:
        return Problem(
            "BadConfiguration",
            "the container refused its configuration (exit code 2) and left no readable report; see the Pod's log",
        )
    if ended.exit_code == _SIGKILL_EXIT_CODE:
        return Problem("Killed", "the container was killed (exit code 137) before it could report")
    return Problem(
        "NoReport",
        f"the container ended with exit code {ended.exit_code} and left no readable report; see the Pod's log",
    )


def _first(checks: Sequence[Callable[[Pod], Problem | None]], pod: Pod) -> Problem | None:
    return next((problem for check in checks if (problem := check(pod)) is not None), None)


# --- why a container cannot start ------------------------------------------------------------------------------------


def _image_not_pulled(pod: Pod) -> Problem | None:
    # One reason and one text for states that alternate every few seconds: the status would never be at rest.
    if _waiting_reason(pod) not in _IMAGE_REASONS:
        return None
    return Problem(
        "ImagePullBackOff",
        f"the image {_image(pod)} cannot be pulled for Pod {_name(pod)}; check the operator's job image, its registry "
        "and its pull secrets",
    )


def _image_name_invalid(pod: Pod) -> Problem | None:
    if _waiting_reason(pod) != "InvalidImageName":
        return None
    return Problem(
        "InvalidImageName",
        f"Pod {_name(pod)} has an invalid image name, {_image(pod)}; correct the operator's job image",
    )


def _container_config_error(pod: Pod) -> Problem | None:
    if _waiting_reason(pod) != "CreateContainerConfigError":
        return None
    words = printable(_waiting(pod).get("message", ""), 200)
    return Problem(
        "CreateContainerConfigError",
        f"the container of Pod {_name(pod)} cannot be configured: {words}; "
        "create the Secret and key that spec.stores names",
    )


def _container_not_started(pod: Pod) -> Problem | None:
    if _waiting_reason(pod) not in _START_REASONS:
        return None
    name = _name(pod)
    return Problem(
        "CreateContainerError", f"the container of Pod {name} cannot be started; see kubectl describe pod {name}"
    )


def _unschedulable(pod: Pod) -> Problem | None:
    scheduled = _condition(pod, "PodScheduled")
    if not is_pending(pod) or scheduled.get("reason") != "Unschedulable":
        return None
    words = printable(scheduled.get("message", ""), 250).rstrip(".")
    # The scheduler has one reason for all; its words only choose the advice.
    advice = (
        "create the PersistentVolumeClaim that spec.logs.volumeClaim names"
        if "persistentvolumeclaim" in words
        else "check spec.job.resources, nodeSelector and tolerations"
    )
    return Problem("Unschedulable", f"Pod {_name(pod)} cannot be scheduled: {words}; {advice}")


_START_CHECKS: Final = (
    _image_not_pulled,
    _image_name_invalid,
    _container_config_error,
    _container_not_started,
    _unschedulable,
)
"""In this order; the first problem found is reported."""


# --- why a Pod did not end well --------------------------------------------------------------------------------------


def _out_of_memory(pod: Pod) -> Problem | None:
    ended = termination(pod)
    if ended is None or ended.reason != "OOMKilled":
        return None
    return Problem("OOMKilled", "the container ran out of memory; raise spec.job.resources.limits.memory")


def _evicted(pod: Pod) -> Problem | None:
    if pod.get("status", {}).get("reason") != "Evicted":
        return None
    return Problem("Evicted", "the node evicted the Pod because it ran short of resources")


def _disrupted(pod: Pod) -> Problem | None:
    if not is_disrupted(pod):
        return None
    return Problem("Disrupted", _DISRUPTIONS.get(_condition(pod, "DisruptionTarget").get("reason", ""), _DISRUPTED))


def _deadline_exceeded(pod: Pod) -> Problem | None:
    if pod.get("status", {}).get("reason") != DEADLINE_EXCEEDED:
        return None
    if never_ran(pod):
        return Problem(
            DEADLINE_EXCEEDED,
            "no container was started within spec.job.timeoutSeconds; look at the next run while it waits: "
            "kubectl describe pods",
        )
    return Problem(
        DEADLINE_EXCEEDED,
        "the run took longer than spec.job.timeoutSeconds and was stopped; raise it or lower the work of one run",
    )


_END_CHECKS: Final = (_out_of_memory, _evicted, _disrupted, _deadline_exceeded)
"""In this order; the first problem found is reported."""


# --- fields of a Pod -------------------------------------------------------------------------------------------------


def _name(pod: Pod) -> str:
    name: str = pod["metadata"]["name"]
    return name


def _waiting(pod: Pod) -> Mapping[str, Any]:
    waiting: Mapping[str, Any] = _container_state(pod).get("waiting") or {}
    return waiting


def _waiting_reason(pod: Pod) -> str:
    reason: str = _waiting(pod).get("reason", "")
    return reason


def _container_state(pod: Pod) -> Mapping[str, Any]:
    for container in pod.get("status", {}).get("containerStatuses") or []:
        if container.get("name") == CONTAINER_NAME:
            state: Mapping[str, Any] = container.get("state") or {}
            return state
    return {}


def _condition(pod: Pod, kind: str) -> Mapping[str, Any]:
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition.get("type") == kind:
            found: Mapping[str, Any] = condition
            return found
    return {}


def _image(pod: Pod) -> str:
    images = [
        c.get("image", "") for c in pod.get("spec", {}).get("containers") or [] if c.get("name") == CONTAINER_NAME
    ]
    return printable(images[0] if images else "", 200)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
