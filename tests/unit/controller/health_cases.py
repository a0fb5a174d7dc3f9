"""Statuses as the controller writes them, and what tools are to make of each."""

from __future__ import annotations

from typing import Any

from controller.runs.missed_schedules import UnfinishedRun
from controller.runs.pods import Problem
from controller.status.policy_status import Observation, Readiness, next_status
from policy.report import Outcome
from policy.status import ConditionStatus, SessionPolicyStatus
from tests.unit.controller.builders import START, run

EMPTY = SessionPolicyStatus()
BEGINNING = Readiness(ConditionStatus.UNKNOWN, "Progressing", "the CronJob is being made")
APPLIED = Readiness(ConditionStatus.TRUE, "CronJobApplied", "the CronJob matches the policy")
SUSPENDED = Readiness(ConditionStatus.TRUE, "Suspended", "no runs are scheduled")
FORBIDDEN = Readiness(ConditionStatus.FALSE, "Forbidden", "the CronJob may not be written")
REFUSED = Readiness(ConditionStatus.FALSE, "InvalidSchedule", "expected exactly 5 fields")


def status(
    readiness: Readiness, generation: int = 7, before: SessionPolicyStatus = EMPTY, **seen: Any
) -> SessionPolicyStatus:
    return next_status(before, Observation(now=START, generation=generation, readiness=readiness, **seen))


SKIPPED = tuple(run(-number, Outcome.SKIPPED) for number in range(3))

# What it is: the status, the verdict by kstatus' rules, and Argo CD's.
CASES: dict[str, tuple[SessionPolicyStatus | None, str, str]] = {
    "not seen yet": (None, "InProgress", "Progressing"),
    "first sight": (status(BEGINNING), "InProgress", "Progressing"),
    "well": (status(APPLIED), "Current", "Healthy"),
    "a newer spec": (status(APPLIED, generation=6), "InProgress", "Progressing"),
    "a newer spec after a stall": (
        status(APPLIED, generation=6, stalled=Problem("Unschedulable", "no node")),
        "InProgress",
        "Progressing",
    ),
    "spec refused": (status(REFUSED, stalled=Problem(REFUSED.reason, REFUSED.message)), "Failed", "Degraded"),
    "not allowed for now": (status(FORBIDDEN), "InProgress", "Degraded"),
    "suspended": (status(SUSPENDED), "Current", "Suspended"),
    "suspended with a run by hand": (status(SUSPENDED, running="by-hand"), "Current", "Suspended"),
    "suspended with a stuck run": (
        status(SUSPENDED, running="by-hand", stalled=Problem("Unschedulable", "no node")),
        "Failed",
        "Degraded",
    ),
    "running": (status(APPLIED, running="shop-1"), "Current", "Healthy"),
    "stuck": (status(APPLIED, running="shop-1", stalled=Problem("Unschedulable", "no node")), "Failed", "Degraded"),
    "missed": (status(APPLIED, newly_missed=(START,)), "Failed", "Degraded"),
    "overrun": (
        status(APPLIED, newly_missed=(START,), running="shop-1", scheduled_run=UnfinishedRun("shop-1", START)),
        "Current",
        "Healthy",
    ),
    "lock held for ever": (status(APPLIED, finished=SKIPPED), "Failed", "Degraded"),
    "last run well": (status(APPLIED, finished=(run(-1),)), "Current", "Healthy"),
    "last run failed": (status(APPLIED, finished=(run(-1, Outcome.FAILED),)), "Current", "Degraded"),
    "skipped once after a failure": (
        status(APPLIED, finished=(run(-2, Outcome.FAILED), run(-1, Outcome.SKIPPED))),
        "Current",
        "Degraded",
    ),
}
