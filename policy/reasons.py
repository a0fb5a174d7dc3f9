"""Reasons of outcomes and names of alerts: closed sets, so that programs may rely on them.

Each of :data:`ALERTS` has a page in docs/runbooks.
"""

from __future__ import annotations

from typing import Final

from policy.rules import RuleType

FAILURES: Final = frozenset(
    {
        "RunFailed",
        "InvalidConfiguration",
        "TableVersionMismatch",
        "DatabaseUnavailable",
        "RedisUnavailable",
        "ClockSkew",
        "SafetyLimitExceeded",
        "LockLost",
    }
)
"""Why a run failed, where the container could say so itself."""

ENDINGS: Final = FAILURES | {
    "Completed",
    "DryRun",
    "LockHeld",
    "DeadlineReached",
    "Interrupted",
    "DeletionsFailed",
    "DeletionLimitReached",
}
"""Reasons in reports of the container. The controller has more, for containers that could not report."""

ALERTS: Final = (
    FAILURES
    | {
        "AbnormalSessions",
        "CacheHitRatioLow",
        "CreationRateHigh",
        "DeletionsFailed",
        "RedisMemoryHigh",
        "RiskySettings",
        "RunTooLong",
        "TooManyActiveSessions",
    }
    | {kind.value for kind in RuleType}
)
"""Reasons of what a run finds worth an alert."""
