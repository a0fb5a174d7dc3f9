"""Which problems of a run deserve an alert: its outcome, exceeded thresholds, abnormal sessions, findings (R2, R5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from policy.alerts import Thresholds
from policy.report import MAX_ALERTS, Alert, Outcome, RunReport, SessionCounts


class Audience(StrEnum):
    """Who gets an alert."""

    OPERATIONS = "operations"
    SECURITY = "security"


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem that a run found.

    Attributes:
        reason: CamelCase word; the same problem has the same reason in every run.
        audience: who gets the alert.
        message: what and how many, for people; nothing secret or personal.
        count: how many or how much, in the reason's own unit.
        grows: whether a larger count is worse, so that a doubled one is sent before the next reminder.
    """

    reason: str
    audience: Audience
    message: str
    count: int = 1
    grows: bool = True


# What happened, by the reason of the report; otherwise "the run failed".
_FAILURES = {
    "RedisUnavailable": "Redis cannot be reached",
    "DatabaseUnavailable": "the database cannot be reached",
    "InvalidConfiguration": "the configuration is invalid",
    "TableVersionMismatch": "the product's tables do not fit this release",
    "SafetyLimitExceeded": "the run refused to delete so many sessions",
    "ClockSkew": "clocks differ too much",
}


def too_many_failed(counts: SessionCounts, thresholds: Thresholds) -> bool:
    """Whether more deletions failed than alerts.thresholds.failedPercent: then the run is Degraded."""
    attempted = counts.deleted + counts.failed
    return counts.failed * 100 > attempted * thresholds.failed_percent


def problems(report: RunReport, thresholds: Thresholds, findings: Sequence[Problem] = ()) -> tuple[Problem, ...]:
    """The problems of a run, the most severe first; each reason once.

    Args:
        report: of the run.
        thresholds: alerts.thresholds of the policy.
        findings: abnormal sessions by rule, and problems seen in Redis and the statistics (R5).
    """
    found = [*_of_outcome(report), *_of_counts(report, thresholds), *findings]
    if report.sessions.abnormal and not any(f.audience is Audience.SECURITY for f in findings):
        found.append(
            Problem(
                "AbnormalSessions",
                Audience.SECURITY,
                f"{_sessions(report.sessions.abnormal)} abnormal or invalid",
                report.sessions.abnormal,
            )
        )
    return tuple({problem.reason: problem for problem in reversed(found)}.values())[::-1]


def report_alerts(found: Sequence[Problem]) -> list[Alert]:
    """The problems for the run report: the most severe, as many as it may hold."""
    return [Alert(reason=problem.reason, count=problem.count) for problem in found[:MAX_ALERTS]]


def _of_outcome(report: RunReport) -> Iterator[Problem]:
    if report.outcome is Outcome.FAILED:
        what = _FAILURES.get(report.reason, "the run failed")
        yield Problem(report.reason, Audience.OPERATIONS, f"{what}: {report.message}", grows=False)


def _of_counts(report: RunReport, thresholds: Thresholds) -> Iterator[Problem]:
    counts = report.sessions
    if too_many_failed(counts, thresholds):
        attempted = counts.deleted + counts.failed
        yield Problem(
            "DeletionsFailed",
            Audience.OPERATIONS,
            f"{counts.failed} of {attempted} deletions failed, more than {thresholds.failed_percent} %",
            counts.failed,
        )
    seconds = round(report.duration_seconds)
    # A run stops itself before its time limit, so a stopped run may be shorter than the threshold.
    if report.reason == "DeadlineReached":
        yield Problem(
            "RunTooLong",
            Audience.OPERATIONS,
            f"the run stopped at its time limit after {seconds} s; {_sessions(counts.remaining)} left for the next run",
            seconds,
        )
    elif report.duration_seconds > thresholds.duration_seconds:
        yield Problem(
            "RunTooLong",
            Audience.OPERATIONS,
            f"the run took {seconds} s, more than {thresholds.duration_seconds} s",
            seconds,
        )
    if 0 < thresholds.active_sessions < counts.active:
        yield Problem(
            "TooManyActiveSessions",
            Audience.OPERATIONS,
            f"{_sessions(counts.active)} active, more than {thresholds.active_sessions}",
            counts.active,
        )


def _sessions(count: int) -> str:
    return "1 session is" if count == 1 else f"{count} sessions are"
