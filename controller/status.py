"""The policy's status: from what it was and what is observed to what it is.

Pure, and the same whatever the order in which Jobs are observed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from controller.pods import Problem
from policy.report import Outcome
from policy.status import (
    HISTORY_LIMIT,
    Condition,
    ConditionStatus,
    ConditionType,
    RunRecord,
    SessionPolicyStatus,
)

APPLIED: Final = "CronJobApplied"
"""Reason of Ready when all is as it should be."""

_FAILURES: Final = frozenset({Outcome.FAILED, Outcome.DEGRADED})


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the spec is accepted and the CronJob matches it, and why."""

    status: ConditionStatus
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Observation:
    """What a reconciliation saw.

    Attributes:
        now: when it was seen; becomes the transition time of conditions that change.
        generation: the policy's metadata.generation.
        readiness: what became of the CronJob.
        cron_job_name: the policy's own CronJob, if there is one.
        last_schedule_time: when that CronJob last started a run.
        next_schedule_time: when the next run is due.
        finished: records of finished Jobs, in any order; those recorded already change nothing.
        running: name of a Job that is not finished.
        stalled: why it cannot go on, or why the spec cannot be used.
        handled_run_request: token of a run request that has its Job now.
    """

    now: datetime
    generation: int
    readiness: Readiness
    cron_job_name: str | None = None
    last_schedule_time: datetime | None = None
    next_schedule_time: datetime | None = None
    finished: tuple[RunRecord, ...] = ()
    running: str | None = None
    stalled: Problem | None = None
    handled_run_request: str | None = None


def stored_status(policy: Mapping[str, Any]) -> SessionPolicyStatus:
    """The status in a policy. A field that does not parse, by whoever it was written, is treated as missing."""
    stored = policy.get("status") or {}
    try:
        return SessionPolicyStatus.model_validate(stored, by_alias=True, by_name=False)
    except ValidationError:
        kept: dict[str, Any] = {}
        for field in SessionPolicyStatus.model_fields.values():
            name = field.alias or ""
            try:
                SessionPolicyStatus.model_validate({name: stored[name]}, by_alias=True, by_name=False)
            except (KeyError, ValidationError):
                continue
            kept[name] = stored[name]
        return SessionPolicyStatus.model_validate(kept, by_alias=True, by_name=False)


def condition(status: SessionPolicyStatus, kind: ConditionType) -> Condition | None:
    """The condition of a type, or None."""
    return next((c for c in status.conditions if c.type is kind), None)


def is_recorded(status: SessionPolicyStatus, job_uid: str) -> bool:
    """Whether the Job's outcome is in the history."""
    return any(record.job_uid == job_uid for record in status.history)


def observe(before: SessionPolicyStatus, seen: Observation) -> SessionPolicyStatus:
    """The status after an observation."""
    history = _merge(before.history, seen.finished)
    success = max(
        (r.completion_time for r in history if r.outcome is Outcome.SUCCEEDED), default=before.last_success_time
    )
    return SessionPolicyStatus(
        observed_generation=seen.generation,
        conditions=_conditions(before, seen, history),
        cron_job_name=seen.cron_job_name,
        next_schedule_time=seen.next_schedule_time,
        last_schedule_time=_latest(before.last_schedule_time, seen.last_schedule_time),
        last_success_time=_latest(before.last_success_time, success),
        consecutive_failures=_consecutive_failures(before, history),
        last_handled_run_request=seen.handled_run_request or before.last_handled_run_request,
        last_run=history[0] if history else before.last_run,
        history=history,
    )


def _merge(recorded: Iterable[RunRecord], finished: Iterable[RunRecord]) -> list[RunRecord]:
    """The newest records, newest first; what was recorded first of a Job stays."""
    by_uid = {record.job_uid: record for record in [*finished, *recorded]}
    ordered = sorted(by_uid.values(), key=lambda r: (r.completion_time, r.job_uid), reverse=True)
    return ordered[:HISTORY_LIMIT]


def _consecutive_failures(before: SessionPolicyStatus, history: list[RunRecord]) -> int:
    """Failures since the last success.

    Counted afresh while that success is in the history. Later, failures that newly came into the history are added to
    what was counted before; one that is older than the history is no longer looked at.
    """
    failures = 0
    known = {record.job_uid for record in before.history}
    for record in history:
        if record.outcome is Outcome.SUCCEEDED:
            return failures
        failures += record.outcome in _FAILURES
    new = sum(r.outcome in _FAILURES for r in history if r.job_uid not in known and _is_after_success(r, before))
    return before.consecutive_failures + new


def _is_after_success(record: RunRecord, before: SessionPolicyStatus) -> bool:
    return before.last_success_time is None or record.completion_time > before.last_success_time


def _conditions(before: SessionPolicyStatus, seen: Observation, history: list[RunRecord]) -> list[Condition]:
    wanted = [(ConditionType.READY, seen.readiness)]
    last_run = _last_run_readiness(before, history)
    if last_run is not None:
        wanted.append((ConditionType.LAST_RUN_SUCCEEDED, last_run))
    if seen.stalled is not None:
        wanted.append(
            (ConditionType.STALLED, Readiness(ConditionStatus.TRUE, seen.stalled.reason, seen.stalled.message))
        )
    if seen.running is not None:
        wanted.append(
            (
                ConditionType.RUNNING,
                Readiness(ConditionStatus.TRUE, "JobActive", f"Job {seen.running} has not finished"),
            )
        )
    return [_transition(condition(before, kind), kind, state, seen) for kind, state in wanted]


def _last_run_readiness(before: SessionPolicyStatus, history: list[RunRecord]) -> Readiness | None:
    """The state of LastRunSucceeded: from the newest run that was not skipped, else as it was."""
    for record in history:
        if record.outcome is not Outcome.SKIPPED:
            succeeded = record.outcome is Outcome.SUCCEEDED
            return Readiness(
                ConditionStatus.TRUE if succeeded else ConditionStatus.FALSE, record.reason, record.message
            )
    was = condition(before, ConditionType.LAST_RUN_SUCCEEDED)
    return Readiness(was.status, was.reason, was.message) if was else None


def _transition(was: Condition | None, kind: ConditionType, state: Readiness, seen: Observation) -> Condition:
    unchanged = was is not None and was.status is state.status
    return Condition(
        type=kind,
        status=state.status,
        reason=state.reason,
        message=state.message,
        last_transition_time=was.last_transition_time if was is not None and unchanged else seen.now,
        # Every condition is judged anew: `kubectl wait` does not believe one of an older generation.
        observed_generation=seen.generation,
    )


def _latest(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((time for time in (one, other) if time is not None), default=None)
