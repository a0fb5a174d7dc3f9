"""Kubernetes Events on a policy, one for each change that ``kubectl describe`` should show."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from controller.runs.missed_schedules import MISSED, OVERRUN, count_text, overlap, overlap_text
from controller.status.policy_status import APPLIED, condition, is_recorded
from policy.names import API_VERSION, FIELD_MANAGER, KIND
from policy.report import Outcome
from policy.status import Condition, ConditionStatus, ConditionType, RunRecord, SessionPolicyStatus


class Severity(StrEnum):
    """An Event's type."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class PolicyEvent:
    """An Event to be created on a policy.

    Attributes:
        severity: Normal or Warning.
        reason: what happened, in one CamelCase word.
        message: what happened, for people.
        job_uid: UID of the Job whose end this is about, which is reported once; empty for anything else.
        trace_id: of the run's trace; None if there is none.
    """

    severity: Severity
    reason: str
    message: str
    job_uid: str = ""
    trace_id: str | None = None


def events_between(before: SessionPolicyStatus, after: SessionPolicyStatus) -> list[PolicyEvent]:
    """The Events for what changed between two statuses, the earliest first."""
    happened: list[PolicyEvent] = []
    if after.last_handled_run_request != before.last_handled_run_request:
        happened.append(
            PolicyEvent(Severity.NORMAL, "RunRequested", f"run {after.last_handled_run_request} was started")
        )
    happened += [_run_event(r) for r in reversed(after.history) if not is_recorded(before, r.job_uid)]
    happened += _missed_events(before, after)
    happened += _condition_events(before, after)
    return happened


def build_event(resource: Mapping[str, Any], event: PolicyEvent, now: datetime, kind: str = KIND) -> dict[str, Any]:
    """The Event object to create, on a resource of one of our kinds."""
    metadata = resource["metadata"]
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            # Below the 253 characters of an object's name, however long the policy's is.
            "name": f"{metadata['name'][:220].rstrip('-.')}.{_suffix(metadata['uid'], event)}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": kind,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "type": event.severity.value,
        "reason": event.reason,
        "message": event.message,
        "source": {"component": FIELD_MANAGER},
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }


def _suffix(policy_uid: str, event: PolicyEvent) -> str:
    """Random, or for a Job's end the same from every controller: a second attempt finds that the Event exists."""
    if not event.job_uid:
        return secrets.token_hex(8)
    return hashlib.sha256(f"{policy_uid}/{event.job_uid}/{event.reason}".encode()).hexdigest()[:16]


def _run_event(record: RunRecord) -> PolicyEvent:
    is_normal = record.outcome in (Outcome.SUCCEEDED, Outcome.SKIPPED)
    text = f"Job {record.job_name}: {record.message}" if record.message else f"Job {record.job_name}"
    details = [] if record.reason == record.outcome.value else [record.reason]
    details += [f"trace {record.trace_id}"] if record.trace_id else []
    return PolicyEvent(
        Severity.NORMAL if is_normal else Severity.WARNING,
        f"Run{record.outcome.value}",
        f"{text} ({', '.join(details)})" if details else text,
        record.job_uid,
        record.trace_id,
    )


def _missed_events(before: SessionPolicyStatus, after: SessionPolicyStatus) -> list[PolicyEvent]:
    """An Event for the first missed run, for the tenth and for the hundredth."""
    missed, last = after.missed_schedules, after.last_missed_schedule_time
    was = before.missed_schedules if missed >= before.missed_schedules else 0
    if last is None or not missed or (was and len(str(missed)) == len(str(was))):
        return []
    running = condition(after, ConditionType.RUNNING)
    if running is not None and running.reason == OVERRUN:
        return [PolicyEvent(Severity.WARNING, MISSED, running.message)]
    job = overlap(last, after.history, None)
    message = (
        overlap_text(missed, last, job)
        if job
        else f"no run was started when one was due at {last:%Y-%m-%dT%H:%M:%SZ} ({count_text(missed)}); see kubectl "
        f"describe cronjob {after.cron_job_name} and check kube-controller-manager"
    )
    return [PolicyEvent(Severity.WARNING, MISSED, message)]


def _condition_events(before: SessionPolicyStatus, after: SessionPolicyStatus) -> list[PolicyEvent]:
    happened = []
    ready = condition(after, ConditionType.READY)
    was = condition(before, ConditionType.READY)
    if (
        ready
        and ready.status is not ConditionStatus.UNKNOWN
        and _differs(ready, was)
        and not _is_first_apply(ready, was)
    ):
        severity = Severity.NORMAL if ready.status is ConditionStatus.TRUE else Severity.WARNING
        happened.append(PolicyEvent(severity, ready.reason, ready.message))
    stalled = condition(after, ConditionType.STALLED)
    # Ready reports an invalid spec already, and `_missed_events` the missed runs.
    if (
        stalled
        and _differs(stalled, condition(before, stalled.type))
        and (ready is None or stalled.reason != ready.reason)
        and stalled.reason != MISSED
    ):
        happened.append(PolicyEvent(Severity.WARNING, stalled.reason, stalled.message))
    return happened


def _is_first_apply(ready: Condition, was: Condition | None) -> bool:
    """Whether this is the first time that the policy is ready, which the Event CronJobCreated reports already."""
    began = was is None or was.status is ConditionStatus.UNKNOWN
    return began and ready.status is ConditionStatus.TRUE and ready.reason == APPLIED


def _differs(now: Condition, was: Condition | None) -> bool:
    return was is None or (now.status, now.reason) != (was.status, was.reason)
