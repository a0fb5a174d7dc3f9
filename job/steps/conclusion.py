"""How a run has ended, from what it has counted: outcome, reason and message of its report. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from job.alerts.problems import too_many_failed
from policy.alerts import Thresholds
from policy.report import Outcome
from stores.model.tally import Tally

STOPPED_MESSAGES = {
    "DeadlineReached": "the time limit was reached; the next run continues",
    "Interrupted": "the run was interrupted; the next run continues",
}
"""Messages of runs that had to stop, by reason."""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How a run has ended; the fields are those of :class:`policy.report.RunReport`."""

    outcome: Outcome
    reason: str
    message: str


def conclude(
    tally: Tally,
    thresholds: Thresholds,
    *,
    dry_run: bool,
    stopped: str | None,
    limit_reached: bool,
    would_refuse: bool,
) -> Conclusion:
    """How a run has ended that did all it could.

    Args:
        tally: what it has counted.
        thresholds: the policy's.
        dry_run: whether nothing was to be changed.
        stopped: why the run had to stop; None if it did not.
        limit_reached: whether something was left because of ``safety.maxDeletions``.
        would_refuse: whether a real run would refuse to delete so many.
    """
    counts = summary(tally, dry_run)
    if would_refuse:
        counts += "; a run would refuse to delete so many, see safety.maxDeletePercent"
    if stopped:
        return Conclusion(Outcome.DEGRADED, stopped, f"{STOPPED_MESSAGES[stopped]}: {counts}")
    if too_many_failed(tally.counts(), thresholds):
        failed = f"more than {thresholds.failed_percent} % of the deletions failed"
        return Conclusion(Outcome.DEGRADED, "DeletionsFailed", f"{failed}: {counts}")
    if limit_reached:
        return Conclusion(Outcome.DEGRADED, "DeletionLimitReached", f"safety.maxDeletions was reached: {counts}")
    return Conclusion(Outcome.SUCCEEDED, "DryRun" if dry_run else "Completed", counts)


def summary(tally: Tally, dry_run: bool) -> str:
    """The counts of a run in one sentence."""
    if dry_run:
        return f"dry run: {tally.expired:,} expired and {tally.over_limit:,} over the limit; nothing was changed"
    parts = [f"{tally.deleted:,} deleted ({tally.expired:,} expired, {tally.evicted:,} over the limit)"]
    further = (
        (tally.duplicate, "duplicates found"),
        (tally.abnormal, "abnormal found"),
        (tally.redis.orphaned, "orphaned Redis sessions"),
        (tally.failed, "failed"),
        (tally.remaining, "remaining"),
    )
    parts += [f"{count:,} {what}" for count, what in further if count]
    return ", ".join(parts) + f", {tally.active:,} active"
