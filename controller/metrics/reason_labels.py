"""The values of the label ``reason``: a closed set, whatever a status holds."""

from __future__ import annotations

from typing import Final

from policy.reasons import ENDINGS

OTHER: Final = "Other"
"""Stands for every reason that neither controller nor job uses: somebody else has written it."""

_SPEC: Final = frozenset({"Forbidden", "InvalidSchedule", "InvalidSpec", "NotAllowed", "NotOwned"})
_NOT_STARTED: Final = frozenset({"JobSuspended", "LastScheduleInFuture", "LockHeld", "MissedSchedule"})
_NO_CONTAINER: Final = frozenset(
    {
        "AdmissionDenied",
        "CreateContainerConfigError",
        "CreateContainerError",
        "FailedAttachVolume",
        "FailedCreatePodSandBox",
        "FailedMount",
        "ImagePullBackOff",
        "InvalidImageName",
        "PodNotCreated",
        "PodSecurity",
        "QuotaExceeded",
        "Unschedulable",
    }
)
_CUT_SHORT: Final = frozenset(
    {
        "BadConfiguration",
        "DeadlineExceeded",
        "Disrupted",
        "Evicted",
        "Killed",
        "NoReport",
        "NodeLost",
        "OOMKilled",
        "PodTerminating",
        "PodsGone",
    }
)

STALLED_REASONS: Final = _SPEC | _NOT_STARTED | _NO_CONTAINER | _CUT_SHORT
"""Reasons of the Stalled condition, and of runs that left no report."""

LAST_RUN_REASONS: Final = ENDINGS | STALLED_REASONS
"""Reasons of a run's outcome: the container's, or the controller's where it left no report."""
