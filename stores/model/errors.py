"""Errors that end a run, each with the reason for the report and the exit code of the process.

Exit codes (the CronJob's podFailurePolicy relies on them): 0 done, 1 failed and a retry may help, 2 bad configuration
and a retry cannot help.
"""

from __future__ import annotations

from typing import ClassVar

from policy.exit_codes import EXIT_BAD_CONFIGURATION, EXIT_FAILED


class RunError(Exception):
    """Ends a run. The message is for people: it names the remedy, and nothing secret or personal."""

    reason: ClassVar[str] = "RunFailed"
    exit_code: ClassVar[int] = EXIT_FAILED


class ConfigurationError(RunError):
    """Policy, URL, table or columns are wrong: somebody has to change something."""

    reason = "InvalidConfiguration"
    exit_code = EXIT_BAD_CONFIGURATION


class TableVersionError(ConfigurationError):
    """The product's own tables are of an older or newer version than this release needs."""

    reason = "TableVersionMismatch"


class DatabaseUnavailableError(RunError):
    """The database cannot be reached, or keeps failing."""

    reason = "DatabaseUnavailable"


class RedisUnavailableError(RunError):
    """Redis cannot be reached, or keeps failing."""

    reason = "RedisUnavailable"


class ClockSkewError(RunError):
    """Clocks differ by more than the policy allows, so timeouts cannot be judged."""

    reason = "ClockSkew"


class SafetyLimitError(RunError):
    """More would be deleted than the policy's safety limits allow; a retry would find the same."""

    reason = "SafetyLimitExceeded"
    exit_code = EXIT_BAD_CONFIGURATION


class LockLostError(RunError):
    """The exclusive lock was lost during the run."""

    reason = "LockLost"


class LockHeldError(Exception):
    """Another run holds the exclusive lock: this one is skipped."""


class StopRequestedError(Exception):
    """The run has to stop now: its time is up, or somebody asked for it.

    Attributes:
        reason: DeadlineReached or Interrupted.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
