"""The words that metrics may say of runs that ended, or cannot go on: a closed set, whatever a status holds."""

from __future__ import annotations

from typing import Final

from policy.reasons import ENDINGS

OTHER: Final = "Other"
"""Stands for every word that is not ours: somebody else has written it."""

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

STALLS: Final = _SPEC | _NOT_STARTED | _NO_CONTAINER | _CUT_SHORT
"""Why a policy or a run cannot go on."""

ENDS: Final = ENDINGS | STALLS
"""How a run ended: in the container's words, or in the controller's where there are none."""
