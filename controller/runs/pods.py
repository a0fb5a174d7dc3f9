"""What the state of a Pod tells about a run that cannot tell it itself."""

from __future__ import annotations

from collections.abc import Mapping
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

# The kubelet's word on a container that it does not find when it ends the Pod, as a rule because it was never made.
_NOT_FOUND: Final = "ContainerStatusUnknown"

DEADLINE_EXCEEDED: Final = "DeadlineExceeded"
"""The reason of what was stopped because it took too long."""

_DISRUPTED: Final = "the Pod was removed from its node: drained, preempted or lost"
_DISRUPTIONS: Final = {
    "PreemptionByScheduler": "the Pod had to make room for one of higher priority; "
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
    """A running Pod of whose node nothing is heard.

    Attributes:
        problem: what to say about it.
        since: when the Pod was marked.
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

    A kubelet that ends a Pod first leaves a container that waits as it is; later it says that there is none.
    """
    state = _container_state(pod)
    return "waiting" in state or (state.get("terminated") or {}).get("reason") == _NOT_FOUND


def start_problem(pod: Pod) -> Problem | None:
    """Why the Pod's container cannot start, as long as that is so."""
    waiting = _container_state(pod).get("waiting") or {}
    reason = waiting.get("reason", "")
    name = pod["metadata"]["name"]
    if reason in _IMAGE_REASONS:
        # One reason and one text for states that alternate every few seconds: the status would never be at rest.
        return Problem(
            "ImagePullBackOff",
            f"the image {_image(pod)} cannot be pulled for Pod {name}; check the operator's job image, its registry "
            "and its pull secrets",
        )
    if reason == "InvalidImageName":
        return Problem(
            reason, f"the image of Pod {name}, {_image(pod)}, has no valid name; correct the operator's job image"
        )
    if reason == "CreateContainerConfigError":
        said = printable(waiting.get("message", ""), 200)
        return Problem(
            reason,
            f"the container of Pod {name} cannot be configured: {said}; "
            "create the Secret and key that spec.stores names",
        )
    if reason in _START_REASONS:
        return Problem(
            "CreateContainerError", f"the container of Pod {name} cannot be started; see kubectl describe pod {name}"
        )
    scheduled = _condition(pod, "PodScheduled")
    if is_pending(pod) and scheduled.get("reason") == "Unschedulable":
        said = printable(scheduled.get("message", ""), 250).rstrip(".")
        return Problem(
            "Unschedulable",
            f"no node takes Pod {name}: {said}; "
            + (
                "create the claim that spec.logs.volumeClaim names"
                if "persistentvolumeclaim" in said
                else "check spec.job.resources, nodeSelector and tolerations"
            ),
        )
    return None


def is_pending(pod: Pod) -> bool:
    """Whether the Pod waits for a node, or for its container."""
    return bool(pod.get("status", {}).get("phase") == "Pending")


def is_over(pod: Pod) -> bool:
    """Whether the Pod has ended, well or not."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def has_succeeded(pod: Pod) -> bool:
    """Whether the Pod has ended well."""
    return bool(pod.get("status", {}).get("phase") == "Succeeded")


def ended_at(pod: Pod) -> datetime | None:
    """When the Pod's container ended, if that is known."""
    return _time((_container_state(pod).get("terminated") or {}).get("finishedAt"))


def taken_at(pod: Pod) -> datetime | None:
    """When a node took the Pod; None if none has, or if its container has been created since."""
    waiting = (_container_state(pod).get("waiting") or {}).get("reason", "")
    scheduled = _condition(pod, "PodScheduled")
    if not is_pending(pod) or scheduled.get("status") != "True":
        return None
    return _time(scheduled.get("lastTransitionTime")) if waiting in _NOT_YET else None


def lost_node(pod: Pod) -> LostNode | None:
    """Whether the Pod's node has gone silent: its Pods are marked not ready, although their containers run."""
    ready = _condition(pod, "Ready")
    since = _time(ready.get("lastTransitionTime"))
    if "running" not in _container_state(pod) or ready.get("status") != "False" or since is None:
        return None
    name, node = pod["metadata"]["name"], pod.get("spec", {}).get("nodeName", "")
    advice = f"node {node}, where Pod {name} runs, does not answer; see kubectl describe node {node}"
    return LostNode(Problem("NodeLost", advice), since)


def is_disrupted(pod: Pod) -> bool:
    """Whether the Pod was removed from its node before it could end."""
    return _condition(pod, "DisruptionTarget").get("status") == "True"


def end_problem(pod: Pod) -> Problem | None:
    """Why the Pod did not end well, where its state tells more than the container's exit code."""
    status = pod.get("status", {})
    ended = termination(pod)
    if ended and ended.reason == "OOMKilled":
        return Problem("OOMKilled", "the container ran out of memory; raise spec.job.resources.limits.memory")
    if status.get("reason") == "Evicted":
        return Problem("Evicted", "the node evicted the Pod because it ran short of resources")
    if is_disrupted(pod):
        reason = _condition(pod, "DisruptionTarget").get("reason", "")
        return Problem("Disrupted", _DISRUPTIONS.get(reason, _DISRUPTED))
    if status.get("reason") == DEADLINE_EXCEEDED and never_ran(pod):
        return Problem(
            DEADLINE_EXCEEDED,
            "no container was started within spec.job.timeoutSeconds; look at the next run while it waits: "
            "kubectl describe pods",
        )
    if status.get("reason") == DEADLINE_EXCEEDED:
        return Problem(
            DEADLINE_EXCEEDED,
            "the run took longer than spec.job.timeoutSeconds and was stopped; raise it or lower the work of one run",
        )
    return None


def exit_problem(ended: Termination) -> Problem:
    """What an exit code alone tells, of a container that left no readable report."""
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
