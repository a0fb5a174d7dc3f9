"""Whether the Pods that are known of a finished Job are all that it had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from controller.runs.pods import Pod, is_disrupted
from controller.runs.run_record import Job, has_led, is_finished, last_attempt

_TERMINAL: Final = ("Succeeded", "Failed")


def is_complete(job: Job, pods: Sequence[Pod]) -> bool:
    """Whether nothing is missing to judge the Job by.

    Jobs and Pods arrive by separate watches, and either may be behind. The Job's status counts the Pods that ended;
    only those that the node removed, which are no attempts, it does not. When in doubt, something is missing. Of an
    Indexed Job whose leader has succeeded, the Pods that were not needed any more are deleted: its leader's is enough.

    Args:
        job: the Job.
        pods: the Job's own Pods, as they were last seen.
    """
    if not is_finished(job):
        return True
    if has_led(job):
        return last_attempt(job, pods) is not None  # of such a Job, the Pod that succeeded
    status = job.get("status") or {}
    ended = sum(pod.get("status", {}).get("phase") in _TERMINAL and not is_disrupted(pod) for pod in pods)
    counted: int = status.get("succeeded", 0) + status.get("failed", 0)
    return ended >= counted
