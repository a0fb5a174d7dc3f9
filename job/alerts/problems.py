"""What in a run is worth an alert: R2's table and thresholds, the abnormal sessions, R5's findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from policy.alerts import Thresholds
from policy.report import MAX_ALERTS, Alert, Outcome, RunReport, SessionCounts


class Audience(StrEnum):
    """Who is told."""

    OPERATIONS = "operations"
    SECURITY = "security"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong now.

    Attributes:
        reason: what, in one CamelCase word; the same problem has the same reason in every run.
        audience: who is told.
        message: what and how many, for people; nothing secret or personal.
        count: how many, or how much; an integer of the reason's own unit.
        grows: whether more of it is worse, so that much more of it is told before the next reminder.
    """

    reason: str
    audience: Audience
    message: str
    count: int = 1
    grows: bool = True


# Reasons of reports for which R2 or an operator has a more telling word than "the run failed".
_FAILURES = {
    "RedisUnavailable": "Redis cannot be reached",
    "DatabaseUnavailable": "the database cannot be reached",
    "InvalidConfiguration": "the policy cannot be run as it is",
    "TableVersionMismatch": "the product's tables do not fit this release",
    "SafetyLimitExceeded": "the run refused to delete so much",
    "ClockSkew": "clocks are too far apart",
}


def too_many_failed(counts: SessionCounts, thresholds: Thresholds) -> bool:
    """Whether more of the deletions failed than the policy lets pass: then the run is Degraded."""
    attempted = counts.deleted + counts.failed
    return counts.failed * 100 > attempted * thresholds.failed_percent


def problems(report: RunReport, thresholds: Thresholds, findings: Sequence[Problem] = ()) -> tuple[Problem, ...]:
    """The problems of a run, the gravest first; each reason once.

    Args:
        report: how the run ended.
        thresholds: from when on something is worth an alert.
        findings: abnormal sessions by rule, and what Redis and the statistics say (R5).
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
    """The problems as the run report has them: the gravest, as many as it may hold."""
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
    # A run stops itself before the Pod's time limit: it may be stopped for taking too long without ever being longer.
    if report.reason == "DeadlineReached":
        yield Problem(
            "RunTooLong",
            Audience.OPERATIONS,
            f"the run had to stop after {seconds} s; {_sessions(counts.remaining)} left to the next run",
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
