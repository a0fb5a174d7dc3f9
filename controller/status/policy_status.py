"""The next status of a policy, computed from its status until now and what was observed.

Pure, and the same in whatever order Jobs are observed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from controller.runs.missed_schedules import (
    CLOCK_TOLERANCE,
    OVERRUN,
    UnfinishedRun,
    missed_problem,
    overlap,
    overlap_text,
)
from controller.runs.pods import Problem
from controller.runs.schedule import MOST_MISSED
from policy.model import Model
from policy.report import MAX_COUNT, Outcome, printable
from policy.status import (
    HISTORY_LIMIT,
    Condition,
    ConditionStatus,
    ConditionType,
    RunRecord,
    RunTotals,
    SessionPolicyStatus,
)

M = TypeVar("M", bound=Model)

APPLIED: Final = "CronJobApplied"
"""Reason of Ready when all is as it should be."""

SUSPENDED: Final = "Suspended"
"""Reason of Ready when the policy asks for no runs."""

DRY_RUN: Final = "DryRun"
"""Reason of LastRunSucceeded when the run only looked."""
# Job names have up to 63 characters; a message, 512.
_SHOWN_TOKEN: Final = 256

_FAILURES: Final = frozenset({Outcome.FAILED, Outcome.DEGRADED})

# A run may be skipped because that of a second policy on the same database holds the lock; several in a row not.
_TOLERATED_SKIPS: Final = 2


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the spec is accepted and the CronJob matches it, and why."""

    status: ConditionStatus
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Observation:
    """What a reconciliation observed.

    Attributes:
        now: when, by the control plane's clock; becomes the transition time of conditions that change.
        generation: the policy's metadata.generation.
        readiness: what became of the CronJob.
        cron_job_name: the policy's own CronJob, if there is one.
        last_schedule_time: when that CronJob last started a run.
        next_schedule_time: when the next run is due.
        newly_missed: times at which a run was due and none was started, newest first; not those counted before.
        finished: records of finished Jobs, in any order; those recorded already change nothing.
        running: name of a Job that is not finished.
        running_since: when the oldest of those was created.
        scheduled_run: the one of those that was started by schedule; CronJobs start no other beside it.
        stalled: why it cannot go on, or why the spec cannot be used.
        stalled_job_uid: UID of the Job that `stalled` is about; None if it is about none.
        handled_run_request: token of a run request that has its Job now.
        waiting_run_request: token of one that waits until the last requested run has finished.
    """

    now: datetime
    generation: int
    readiness: Readiness
    cron_job_name: str | None = None
    last_schedule_time: datetime | None = None
    next_schedule_time: datetime | None = None
    newly_missed: tuple[datetime, ...] = ()
    finished: tuple[RunRecord, ...] = ()
    running: str | None = None
    running_since: datetime | None = None
    scheduled_run: UnfinishedRun | None = None
    stalled: Problem | None = None
    stalled_job_uid: str | None = None
    handled_run_request: str | None = None
    waiting_run_request: str | None = None


def stored_status(policy: Mapping[str, Any]) -> SessionPolicyStatus:
    """The status in a policy. A field that does not parse, whoever wrote it, is treated as missing."""
    return read_status(SessionPolicyStatus, policy)


def read_status(model: type[M], resource: Mapping[str, Any]) -> M:
    """The status in a resource of any kind; a field that does not parse is treated as missing."""
    stored = resource.get("status") or {}
    try:
        return model.model_validate(stored, by_alias=True, by_name=False)
    except ValidationError:
        kept: dict[str, Any] = {}
        for field in model.model_fields.values():
            name = field.alias or ""
            try:
                model.model_validate({name: stored[name]}, by_alias=True, by_name=False)
            except (KeyError, ValidationError):
                continue
            kept[name] = stored[name]
        return model.model_validate(kept, by_alias=True, by_name=False)


def condition(status: SessionPolicyStatus, kind: ConditionType) -> Condition | None:
    """The condition of a type, or None."""
    return next((c for c in status.conditions if c.type is kind), None)


def stall_of_job(status: SessionPolicyStatus, job_uid: str) -> Problem | None:
    """What the status says that this very Job was stalled by; None if it was not."""
    stalled = condition(status, ConditionType.STALLED)
    if stalled is None or status.stalled_job_uid != job_uid:
        return None
    return Problem(stalled.reason, stalled.message)


def is_recorded(status: SessionPolicyStatus, job_uid: str) -> bool:
    """Whether the Job's outcome is in the history."""
    return any(record.job_uid == job_uid for record in status.history)


def is_recorded_or_too_old(status: SessionPolicyStatus, job_uid: str, ended: datetime, now: datetime) -> bool:
    """Whether a Job that ended needs no record: it is in the history, or older than all of a full history."""
    return is_recorded(status, job_uid) or _index(status.history, (ended, job_uid), now) >= HISTORY_LIMIT


def next_status(before: SessionPolicyStatus, seen: Observation) -> SessionPolicyStatus:
    """The status after an observation."""
    history = _merge(before.history, seen)
    new = [record for record in history if not is_recorded(before, record.job_uid)]
    last_schedule = seen.last_schedule_time or _not_ahead(before.last_schedule_time, seen)
    missed, last_missed = _missed(before, seen, last_schedule)
    return SessionPolicyStatus(
        observed_generation=seen.generation,
        conditions=_conditions(before, seen, history, missed, last_missed),
        stalled_job_uid=seen.stalled_job_uid,
        cron_job_name=seen.cron_job_name,
        next_schedule_time=seen.next_schedule_time,
        last_schedule_time=last_schedule,
        missed_schedules=missed,
        last_missed_schedule_time=last_missed,
        last_success_time=_last_success(before, seen, history),
        consecutive_failures=_consecutive_failures(before, history),
        totals=_totals(before.totals, new, len(seen.newly_missed)),
        last_handled_run_request=seen.handled_run_request or before.last_handled_run_request,
        last_run=history[0] if history else before.last_run,
        history=history,
    )


def _merge(recorded: list[RunRecord], seen: Observation) -> list[RunRecord]:
    """The newest records, newest first; the first record of a Job is kept.

    Recorded runs keep their order, and a new record is inserted by the time at which its Job ended. A record whose time
    is in the future was written by a clock that was ahead: it counts as older than all new ones.
    """
    known = {record.job_uid for record in recorded}
    merged = list(recorded)
    new = {record.job_uid: record for record in seen.finished if record.job_uid not in known}
    for record in sorted(new.values(), key=_end):
        merged.insert(_index(merged, _end(record), seen.now), record)
    return merged[:HISTORY_LIMIT]


def _index(history: list[RunRecord], end: tuple[datetime, str], now: datetime) -> int:
    return next((i for i, record in enumerate(history) if _is_ahead(record, now) or _end(record) < end), len(history))


def _end(record: RunRecord) -> tuple[datetime, str]:
    return record.completion_time, record.job_uid


def _not_ahead(time: datetime | None, seen: Observation) -> datetime | None:
    return None if time is not None and time > seen.now + CLOCK_TOLERANCE else time


def _is_ahead(record: RunRecord, now: datetime) -> bool:
    return record.completion_time > now + CLOCK_TOLERANCE


def _missed(
    before: SessionPolicyStatus, seen: Observation, last_schedule: datetime | None
) -> tuple[int, datetime | None]:
    """How many due runs were not started since one was, and when the last of them was due."""
    last = before.last_missed_schedule_time
    is_over = last is None or (last_schedule is not None and last_schedule >= last) or _is_suspended(seen)
    count = 0 if is_over else before.missed_schedules
    if not seen.newly_missed:
        return count, None if is_over else last
    return min(count + len(seen.newly_missed), MOST_MISSED), seen.newly_missed[0]


def _totals(before: RunTotals, new: list[RunRecord], missed: int) -> RunTotals:
    """The totals with the new records of the history added; each Job is added once."""

    def plus(total: int, more: int) -> int:
        return min(total + more, MAX_COUNT)

    def runs(outcome: Outcome) -> int:
        return sum(record.outcome is outcome for record in new)

    return RunTotals(
        runs_succeeded=plus(before.runs_succeeded, runs(Outcome.SUCCEEDED)),
        runs_degraded=plus(before.runs_degraded, runs(Outcome.DEGRADED)),
        runs_failed=plus(before.runs_failed, runs(Outcome.FAILED)),
        runs_skipped=plus(before.runs_skipped, runs(Outcome.SKIPPED)),
        deleted_sessions=plus(before.deleted_sessions, sum(r.sessions.deleted for r in new if not r.dry_run)),
        missed_schedules=plus(before.missed_schedules, missed),
    )


def _last_success(before: SessionPolicyStatus, seen: Observation, history: list[RunRecord]) -> datetime | None:
    """When a run last succeeded, dry runs excepted; never in the future, which would hide that none does any more."""
    known = min(before.last_success_time, seen.now) if before.last_success_time else None
    for record in history:
        if record.outcome is Outcome.SUCCEEDED and not record.dry_run:
            return (known or seen.now) if _is_ahead(record, seen.now) else record.completion_time
    return known


def _consecutive_failures(before: SessionPolicyStatus, history: list[RunRecord]) -> int:
    """Failures since the last success.

    Counted from the history while that success is in it. Later, new failures are added to the count until now; one that
    is older than the history does not count.
    """
    since = list(takewhile(lambda record: record.outcome is not Outcome.SUCCEEDED, history))
    failures = [record for record in since if record.outcome in _FAILURES]
    if len(since) < len(history):
        return len(failures)
    return before.consecutive_failures + sum(not is_recorded(before, record.job_uid) for record in failures)


def _is_suspended(seen: Observation) -> bool:
    return seen.readiness.reason == SUSPENDED


def _conditions(
    before: SessionPolicyStatus,
    seen: Observation,
    history: list[RunRecord],
    missed: int,
    last_missed: datetime | None,
) -> list[Condition]:
    wanted = [(ConditionType.READY, seen.readiness)]
    last_run = _last_run_readiness(before, history)
    if last_run is not None:
        wanted.append((ConditionType.LAST_RUN_SUCCEEDED, last_run))
    stalled = seen.stalled
    if stalled is None and not _is_suspended(seen):
        ended = [record for record in history if not _is_ahead(record, seen.now)]
        due = missed_problem(missed, last_missed, seen.cron_job_name, ended) if seen.running is None else None
        stalled = due or _lock_problem(history, seen.running_since)
    if stalled is not None:
        wanted.append((ConditionType.STALLED, Readiness(ConditionStatus.TRUE, stalled.reason, stalled.message)))
    if seen.running is not None:
        reason, words = "JobActive", f"Job {seen.running} has not finished"
        in_the_way = overlap(last_missed, (), seen.scheduled_run)
        if last_missed is not None and in_the_way:
            reason, words = OVERRUN, overlap_text(missed, last_missed, in_the_way)
        if seen.waiting_run_request is not None:
            words += f"; run {printable(seen.waiting_run_request, _SHOWN_TOKEN)} starts when the requested one has"
        wanted.append((ConditionType.RUNNING, Readiness(ConditionStatus.TRUE, reason, printable(words))))
    return [_transition(condition(before, kind), kind, state, seen) for kind, state in wanted]


def _lock_problem(history: list[RunRecord], running_since: datetime | None) -> Problem | None:
    """Why a policy is stalled when run after run is skipped, and not because of its own unfinished run."""
    last = takewhile(lambda record: record.outcome is Outcome.SKIPPED, history)
    skipped = sum(running_since is None or record.start_time < running_since for record in last)
    if skipped <= _TOLERATED_SKIPS:
        return None
    number = f"{skipped} runs" if skipped < HISTORY_LIMIT else f"{skipped} runs, or more,"
    return Problem(
        "LockHeld",
        f"the last {number} were skipped because another run held the lock each time; look for another policy "
        "on the same table or keys with the same schedule, and for a run that hangs: "
        "kubectl get spol,jobs --all-namespaces",
    )


def _last_run_readiness(before: SessionPolicyStatus, history: list[RunRecord]) -> Readiness | None:
    """The state of LastRunSucceeded: from the newest run that was not skipped, else as it was."""
    for record in history:
        if record.outcome is not Outcome.SKIPPED:
            succeeded = record.outcome is Outcome.SUCCEEDED
            reason, message = record.reason, record.message
            if record.dry_run and reason != DRY_RUN:
                # Whatever the container reports: a dry run must not look like one that deleted sessions.
                reason, message = DRY_RUN if succeeded else reason, printable(f"dry run: {message}")
            return Readiness(ConditionStatus.TRUE if succeeded else ConditionStatus.FALSE, reason, message)
    was = condition(before, ConditionType.LAST_RUN_SUCCEEDED)
    return Readiness(was.status, was.reason, was.message) if was else None


def _transition(was: Condition | None, kind: ConditionType, state: Readiness, seen: Observation) -> Condition:
    since = was.last_transition_time if was is not None and was.status is state.status else seen.now
    return Condition(
        type=kind,
        status=state.status,
        reason=state.reason,
        message=printable(state.message),
        last_transition_time=since if since <= seen.now + CLOCK_TOLERANCE else seen.now,
        # Every condition is computed anew: `kubectl wait` ignores one of an older generation.
        observed_generation=seen.generation,
    )
