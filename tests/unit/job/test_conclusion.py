"""How a run has ended: the first reason that applies is reported, and the counts always are."""

from __future__ import annotations

from typing import Any

import pytest

from job.steps.conclusion import Conclusion, conclude
from policy.alerts import Thresholds
from policy.report import Outcome
from stores.model.sessions import Cause
from stores.model.tally import Tally


def concluded(tally: Tally | None = None, **ending: Any) -> Conclusion:
    defaults: dict[str, Any] = {"dry_run": False, "stopped": None, "limit_reached": False, "would_refuse": False}
    return conclude(tally or Tally(), Thresholds(), **{**defaults, **ending})


@pytest.mark.parametrize(
    ("ending", "outcome", "reason"),
    [
        ({}, Outcome.SUCCEEDED, "Completed"),
        ({"dry_run": True}, Outcome.SUCCEEDED, "DryRun"),
        ({"limit_reached": True}, Outcome.DEGRADED, "DeletionLimitReached"),
        ({"stopped": "Interrupted", "limit_reached": True}, Outcome.DEGRADED, "Interrupted"),
        ({"stopped": "DeadlineReached", "dry_run": True}, Outcome.DEGRADED, "DeadlineReached"),
    ],
)
def test_r2_11_the_first_reason_that_applies(ending: dict[str, Any], outcome: Outcome, reason: str) -> None:
    found = concluded(**ending)
    assert (found.outcome, found.reason) == (outcome, reason)
    assert "next run continues" in found.message or "stopped" not in ending


def test_r2_11_failed_deletions_are_reported_before_the_deletion_limit() -> None:
    assert concluded(Tally(deleted=1, failed=99), limit_reached=True).reason == "DeletionsFailed"


def test_r2_11_the_message_has_the_counts() -> None:
    tally = Tally(active=1234, expired=5, deleted=4, failed=1)
    tally.due.expect(Cause.EXPIRED, 7)
    tally.due.settle(Cause.EXPIRED, 5)
    found = "4 deleted (5 expired, 0 over the limit), 1 failed, 2 remaining, 1,234 active"
    assert found in concluded(tally).message
    assert "nothing was changed; a run would refuse" in concluded(tally, dry_run=True, would_refuse=True).message
