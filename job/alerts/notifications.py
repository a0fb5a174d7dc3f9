"""Which problems are told now: new ones at once, standing ones after a while, none with every run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from job.alerts.alert_state import AlertState, ProblemRecord
from job.alerts.problems import Audience, Problem
from policy.report import Outcome, RunReport

# A problem that has become so many times larger is told again at once.
_GROWTH = 2
# A problem is over when no run has met it for this part of the time between reminders.
_QUIET_SHARE = 4

# How a run may end without having looked at everything: a problem it did not meet may still stand.
_INCOMPLETE = frozenset({"DeadlineReached", "Interrupted"})


@dataclass(frozen=True, slots=True)
class Notification:
    """One message to send.

    Attributes:
        problem: what is wrong, or was.
        since: when it was first met.
        resolved: it is over.
    """

    problem: Problem
    since: datetime
    resolved: bool = False


def is_complete(report: RunReport) -> bool:
    """Whether what this run did not meet is over."""
    return report.outcome in (Outcome.SUCCEEDED, Outcome.DEGRADED) and report.reason not in _INCOMPLETE


def due_notifications(
    found: Sequence[Problem], memory: AlertState, now: datetime, repeat_after_seconds: int, *, complete: bool
) -> list[Notification]:
    """What to tell now.

    Args:
        found: the problems of this run.
        memory: what earlier runs have told.
        now: the time.
        repeat_after_seconds: when a standing problem is told again; 0 for with every run.
        complete: whether this run would have met every problem that still stands.
    """
    due = [
        Notification(problem, _since(memory.problems.get(problem.reason), now))
        for problem in found
        if _is_due(problem, memory.problems.get(problem.reason), now, timedelta(seconds=repeat_after_seconds))
    ]
    return due + [
        Notification(
            Problem(reason, Audience.OPERATIONS, "runs do not meet it any more", told.count), told.since, resolved=True
        )
        for reason, told in _absent(found, memory).items()
        # An incident is not over because the last run saw no more of it: security is not told so.
        if complete
        and told.told_at is not None
        and told.audience == Audience.OPERATIONS
        and _is_over(told, now, repeat_after_seconds)
    ]


def updated_state(
    found: Sequence[Problem],
    memory: AlertState,
    reached: Collection[str],
    now: datetime,
    repeat_after_seconds: int,
    *,
    complete: bool,
) -> AlertState:
    """What to keep for the next run.

    Args:
        found: the problems of this run.
        memory: what earlier runs have told.
        reached: reasons of the problems that somebody was told of just now.
        now: the time.
        repeat_after_seconds: when a standing problem is told again.
        complete: whether this run would have met every problem that still stands.
    """
    met = {problem.reason: _met(problem, memory.problems.get(problem.reason), reached, now) for problem in found}
    absent = _absent(found, memory)
    if complete:
        absent = {
            reason: told.model_copy(update={"gone_since": told.gone_since or now})
            for reason, told in absent.items()
            if told.told_at is not None and not _is_over(told, now, repeat_after_seconds)
        }
    return AlertState(updated_at=now, problems=absent | met)


def _absent(found: Sequence[Problem], memory: AlertState) -> dict[str, ProblemRecord]:
    standing = {problem.reason for problem in found}
    return {reason: told for reason, told in sorted(memory.problems.items()) if reason not in standing}


def _is_over(told: ProblemRecord, now: datetime, repeat_after_seconds: int) -> bool:
    """Whether a problem that this run did not meet is over for good: one that comes and goes would shout otherwise."""
    return now - (told.gone_since or now) >= timedelta(seconds=repeat_after_seconds) / _QUIET_SHARE


def _met(problem: Problem, told: ProblemRecord | None, reached: Collection[str], now: datetime) -> ProblemRecord:
    if problem.reason in reached or told is None:
        told_at = now if problem.reason in reached else None
        return ProblemRecord(since=_since(told, now), count=problem.count, told_at=told_at, audience=problem.audience)
    return told.model_copy(update={"gone_since": None, "audience": problem.audience})


def _since(told: ProblemRecord | None, now: datetime) -> datetime:
    return now if told is None else told.since


def _is_due(problem: Problem, told: ProblemRecord | None, now: datetime, repeat: timedelta) -> bool:
    if told is None or told.told_at is None or told.told_at > now:  # a clock was set back: better twice than never
        return True
    if now - told.told_at >= repeat:
        return True
    return problem.grows and problem.count >= max(1, told.count) * _GROWTH
