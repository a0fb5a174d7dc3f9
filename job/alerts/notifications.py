"""Decides which problems to send now: new ones at once, persisting ones again after alerts.repeatAfterSeconds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from job.alerts.alert_state import AlertState, ProblemRecord
from job.alerts.problems import Audience, Problem
from policy.report import Outcome, RunReport

# A problem that has grown by this factor is sent again at once.
_GROWTH_FACTOR = 2
# A problem is resolved when no run has found it for this fraction of repeatAfterSeconds.
_RESOLVED_AFTER_FRACTION = 4

# Reasons of runs that did not check everything: a problem they did not find may persist.
_INCOMPLETE = frozenset({"DeadlineReached", "Interrupted"})


@dataclass(frozen=True, slots=True)
class Notification:
    """A problem to send.

    Attributes:
        problem: what is wrong, or was.
        since: when a run first found it.
        resolved: whether it is over.
    """

    problem: Problem
    since: datetime
    resolved: bool = False


def is_complete(report: RunReport) -> bool:
    """Whether the run checked everything, so that a problem it did not find no longer exists."""
    return report.outcome in (Outcome.SUCCEEDED, Outcome.DEGRADED) and report.reason not in _INCOMPLETE


def due_notifications(
    found: Sequence[Problem], state: AlertState, now: datetime, repeat_after_seconds: int, *, complete: bool
) -> list[Notification]:
    """The problems to send now.

    Args:
        found: the problems of this run.
        state: of earlier runs.
        now: the time.
        repeat_after_seconds: when a persisting problem is sent again; 0 for with every run.
        complete: see :func:`is_complete`.
    """
    due = [
        Notification(problem, _since(state.problems.get(problem.reason), now))
        for problem in found
        if _is_due(problem, state.problems.get(problem.reason), now, timedelta(seconds=repeat_after_seconds))
    ]
    return due + [
        Notification(
            Problem(reason, Audience.OPERATIONS, "runs no longer find it", record.count), record.since, resolved=True
        )
        for reason, record in _no_longer_found(found, state).items()
        # A security incident is not over because the last run found no more of it: no message says so.
        if complete
        and record.sent_at is not None
        and record.audience == Audience.OPERATIONS
        and _is_resolved(record, now, repeat_after_seconds)
    ]


def updated_state(
    found: Sequence[Problem],
    state: AlertState,
    sent: Collection[str],
    now: datetime,
    repeat_after_seconds: int,
    *,
    complete: bool,
) -> AlertState:
    """The state to save for the next run.

    Args:
        found: the problems of this run.
        state: of earlier runs.
        sent: reasons of the problems that were just sent successfully.
        now: the time.
        repeat_after_seconds: when a persisting problem is sent again.
        complete: see :func:`is_complete`.
    """
    current = {problem.reason: _updated(problem, state.problems.get(problem.reason), sent, now) for problem in found}
    earlier = _no_longer_found(found, state)
    if complete:
        earlier = {
            reason: record.model_copy(update={"gone_since": record.gone_since or now})
            for reason, record in earlier.items()
            if record.sent_at is not None and not _is_resolved(record, now, repeat_after_seconds)
        }
    return AlertState(updated_at=now, problems=earlier | current)


def _no_longer_found(found: Sequence[Problem], state: AlertState) -> dict[str, ProblemRecord]:
    current = {problem.reason for problem in found}
    return {reason: record for reason, record in sorted(state.problems.items()) if reason not in current}


def _is_resolved(record: ProblemRecord, now: datetime, repeat_after_seconds: int) -> bool:
    """Whether a problem that this run did not find stays away: one that comes and goes is not sent again each time."""
    return now - (record.gone_since or now) >= timedelta(seconds=repeat_after_seconds) / _RESOLVED_AFTER_FRACTION


def _updated(problem: Problem, record: ProblemRecord | None, sent: Collection[str], now: datetime) -> ProblemRecord:
    if problem.reason in sent or record is None:
        sent_at = now if problem.reason in sent else None
        return ProblemRecord(since=_since(record, now), count=problem.count, sent_at=sent_at, audience=problem.audience)
    return record.model_copy(update={"gone_since": None, "audience": problem.audience})


def _since(record: ProblemRecord | None, now: datetime) -> datetime:
    return now if record is None else record.since


def _is_due(problem: Problem, record: ProblemRecord | None, now: datetime, repeat: timedelta) -> bool:
    if record is None or record.sent_at is None or record.sent_at > now:  # if a clock was set back: twice, not never
        return True
    if now - record.sent_at >= repeat:
        return True
    return problem.grows and problem.count >= max(1, record.count) * _GROWTH_FACTOR
