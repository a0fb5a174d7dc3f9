"""The next status of a SessionRevocation, and what to do next. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from controller.manifests.drift import is_owned_by
from controller.runs.job_state import Job, JobEnd, job_end, last_attempt
from controller.runs.pods import Pod, Problem, termination
from controller.runs.run_record import failure_cause
from controller.runs.stall_checks import check_progress
from controller.runs.termination_report import parse_report
from controller.status.events import PolicyEvent, Severity
from policy.manifest import SessionRevocation
from policy.report import printable
from policy.revocation import (
    RevocationCondition,
    RevocationConditionType,
    RevocationCounts,
    RevocationReport,
    SessionRevocationSpec,
    SessionRevocationStatus,
)
from policy.status import ConditionStatus

# The longest wait for a policy, or until the Job may be created. Later, the sessions found would be others than those
# that were meant.
_PATIENCE: Final = timedelta(hours=1)
_RECHECK_SECONDS: Final = 60.0

_States = Mapping[RevocationConditionType, tuple[ConditionStatus, Problem]]

_STARTING: Final = Problem("Starting", "the Job is being created")
_RUNNING: Final = Problem("Running", "the Job is running")
_JOB_GONE: Final = Problem(
    "JobGone",
    "the Job was deleted before its outcome was seen, so what it did is not known; it is not created again, because "
    "the user may have logged in meanwhile: apply another SessionRevocation to be sure",
)
_NOT_OWNED: Final = Problem(
    "NotOwned", "a Job of the name of this revocation's exists and is not owned by it; delete it, and apply it again"
)
_NOT_REPORTED: Final = Problem(
    "NoReport",
    "the container ended with exit code 0 but left no readable report, so what it did is not known; see the Pod's log, "
    "or apply another SessionRevocation to be sure",
)
_WITHHELD: Final = "the reason is not repeated here, because it contains the user"


@dataclass(frozen=True, slots=True)
class Observation:
    """What a reconciliation observed.

    Attributes:
        now: when.
        revocation: the resource.
        uid: its UID.
        created: when it was created.
        job: the Job of its name, if there is one.
        pods: Pods that may be the Job's.
        blocked: why there is no Job and none could be created now.
    """

    now: datetime
    revocation: SessionRevocation
    uid: str
    created: datetime
    job: Job | None = None
    pods: Sequence[Pod] = ()
    blocked: Problem | None = None


@dataclass(frozen=True, slots=True)
class NextStep:
    """What to do next.

    Attributes:
        status: written first.
        resume: whether to start the Job then.
        recheck_seconds: when to look again, where no event will tell.
    """

    status: SessionRevocationStatus
    resume: bool = False
    recheck_seconds: float | None = None


def condition(status: SessionRevocationStatus, kind: RevocationConditionType) -> RevocationCondition | None:
    """The condition of a type, or None."""
    return next((c for c in status.conditions if c.type is kind), None)


def is_finished(status: SessionRevocationStatus) -> bool:
    """Whether it has ended, successfully or not."""
    ends = (RevocationConditionType.COMPLETE, RevocationConditionType.FAILED)
    return any(c.type in ends and c.status is ConditionStatus.TRUE for c in status.conditions)


def expires_at(resource: Mapping[str, Any], status: SessionRevocationStatus) -> datetime:
    """When a finished revocation is to be deleted."""
    default = SessionRevocationSpec.model_fields["ttl_seconds_after_finished"].default
    seconds = resource["spec"].get("ttlSecondsAfterFinished", default)
    ended = status.completion_time or datetime.fromisoformat(resource["metadata"]["creationTimestamp"])
    return ended + timedelta(seconds=seconds)


def without_user(words: str, user: str | None) -> str:
    """The text, or a replacement if it contains the user: personal data is kept out of status, Events and logs."""
    return _WITHHELD if user is not None and user in words else words


def next_step(before: SessionRevocationStatus, seen: Observation) -> NextStep:
    """What to do about a revocation that has not ended."""
    if seen.job is None:
        return _without_job(before, seen)
    if not is_owned_by(seen.job, seen.uid) or before.job_uid not in (None, seen.job["metadata"]["uid"]):
        return _failed(before, seen, _JOB_GONE if before.job_uid else _NOT_OWNED)
    end = job_end(seen.job)
    if end is not None:
        return _ended(before, seen, seen.job, end)
    if seen.job["spec"].get("suspend"):
        return NextStep(_in_progress(before, seen, _STARTING), resume=True)
    progress = check_progress(seen.job, seen.pods, _known_stall(before), seen.now)
    if progress.stalled is not None:
        return NextStep(_in_progress(before, seen, progress.stalled, stalled=True))
    return NextStep(_in_progress(before, seen, _RUNNING), recheck_seconds=progress.recheck_seconds)


def refused_step(before: SessionRevocationStatus, generation: int, problem: Problem, now: datetime) -> NextStep:
    """The failed status of a revocation whose spec is invalid."""
    return NextStep(_status(before, generation, now, _end_states(problem), completion_time=now))


def events_between(before: SessionRevocationStatus, after: SessionRevocationStatus) -> list[PolicyEvent]:
    """The Events for what changed between two statuses."""
    kinds = RevocationConditionType
    events = []
    if after.job_uid is not None and before.job_uid is None:
        events.append(PolicyEvent(Severity.NORMAL, "JobCreated", f"Job {after.job_name} created"))
    complete, was = condition(after, kinds.COMPLETE), condition(before, kinds.COMPLETE)
    if complete is None or (was is not None and (was.status, was.reason) == (complete.status, complete.reason)):
        return events
    if complete.status is ConditionStatus.TRUE:
        events.append(PolicyEvent(Severity.NORMAL, complete.reason, complete.message))
    elif complete.reason not in (_STARTING.reason, _RUNNING.reason):
        events.append(PolicyEvent(Severity.WARNING, complete.reason, complete.message))
    return events


# --- states ----------------------------------------------------------------------------------------------------------


def _without_job(before: SessionRevocationStatus, seen: Observation) -> NextStep:
    if before.job_uid is not None:
        return _failed(before, seen, _JOB_GONE)
    problem = seen.blocked or _STARTING
    left = (seen.created + _PATIENCE - seen.now).total_seconds()
    if left <= 0:
        return _failed(before, seen, Problem(problem.reason, f"given up after an hour; {problem.message}"))
    return NextStep(_in_progress(before, seen, problem), recheck_seconds=min(left, _RECHECK_SECONDS))


def _known_stall(before: SessionRevocationStatus) -> Problem | None:
    """What stalled the revocation's Job, the only one it ever has, when it was last checked."""
    stalled = condition(before, RevocationConditionType.STALLED)
    return Problem(stalled.reason, stalled.message) if stalled else None


def _in_progress(
    before: SessionRevocationStatus, seen: Observation, problem: Problem, *, stalled: bool = False
) -> SessionRevocationStatus:
    # kstatus takes Stalled for a failure and Reconciling for work in progress.
    kind = RevocationConditionType.STALLED if stalled else RevocationConditionType.RECONCILING
    states = {
        RevocationConditionType.COMPLETE: (ConditionStatus.FALSE, problem),
        kind: (ConditionStatus.TRUE, problem),
    }
    return _status(before, _generation(seen), seen.now, states, seen.job)


def _failed(before: SessionRevocationStatus, seen: Observation, problem: Problem) -> NextStep:
    return NextStep(_status(before, _generation(seen), seen.now, _end_states(problem), completion_time=seen.now))


def _ended(before: SessionRevocationStatus, seen: Observation, job: Job, end: JobEnd) -> NextStep:
    last = last_attempt(job, seen.pods)
    ended = termination(last) if last else None
    report = parse_report(RevocationReport, ended.message) if ended else None
    reports = _reports(job, seen.pods)
    sessions, dry_run = _sum(reports), any(r.dry_run for r in reports)
    if end.succeeded and report is not None:
        uncounted = len(reports) < _attempt_count(job)
        done = _done(sessions, dry_run=dry_run, by_hash=seen.revocation.spec.user is None, uncounted=uncounted)
        states: _States = {RevocationConditionType.COMPLETE: (ConditionStatus.TRUE, done)}
    elif end.succeeded:
        states = _end_states(_NOT_REPORTED)
    elif report is not None and ended is not None and ended.exit_code != 0:
        states = _end_states(Problem(report.reason, without_user(report.message, seen.revocation.spec.user)))
    else:
        states = _end_states(failure_cause(last, end.failure_reason, _known_stall(before)))
    status = _status(before, _generation(seen), seen.now, states, job, completion_time=end.time)
    return NextStep(status.model_copy(update={"sessions": sessions if reports else None, "dry_run": dry_run}))


def _done(sessions: RevocationCounts, *, dry_run: bool, by_hash: bool, uncounted: bool) -> Problem:
    """The message of a success, composed here: only numbers are taken from the container's report."""
    if dry_run:
        what = f"dry run: {_sessions(sessions.found)} would be revoked; nothing was changed"
        return Problem("DryRun", f"{what}: set dryRun to false in the policy")
    also = "; what an interrupted attempt revoked is not counted" if uncounted else ""
    if sessions.revoked or uncounted:
        where = f"{sessions.database_rows:,} in the database, {sessions.redis_keys:,} in Redis"
        return Problem("Revoked", f"{_sessions(sessions.revoked)} revoked ({where}){also}")
    if by_hash:
        return Problem("NoSessions", "no session has this hash: it has ended, or the hash was made with another key")
    return Problem("NoSessions", "there was no session to revoke")


def _end_states(problem: Problem) -> _States:
    return {
        RevocationConditionType.COMPLETE: (ConditionStatus.FALSE, problem),
        RevocationConditionType.FAILED: (ConditionStatus.TRUE, problem),
        RevocationConditionType.STALLED: (ConditionStatus.TRUE, problem),
    }


def _status(
    before: SessionRevocationStatus,
    generation: int,
    now: datetime,
    states: _States,
    job: Job | None = None,
    completion_time: datetime | None = None,
) -> SessionRevocationStatus:
    conditions = []
    for kind, (status, problem) in states.items():
        was = condition(before, kind)
        same = was is not None and was.status is status
        conditions.append(
            RevocationCondition(
                type=kind,
                status=status,
                reason=problem.reason,
                message=printable(problem.message),
                last_transition_time=was.last_transition_time if was is not None and same else now,
                observed_generation=generation,
            )
        )
    started = (job or {}).get("status", {}).get("startTime")
    return SessionRevocationStatus(
        observed_generation=generation,
        conditions=conditions,
        job_name=job["metadata"]["name"] if job else before.job_name,
        job_uid=job["metadata"]["uid"] if job else before.job_uid,
        start_time=datetime.fromisoformat(started) if started else before.start_time,
        completion_time=completion_time,
        dry_run=before.dry_run,
        sessions=before.sessions,
    )


# --- reports of the attempts -----------------------------------------------------------------------------------------


def _reports(job: Job, pods: Sequence[Pod]) -> list[RevocationReport]:
    """The reports of all attempts that left one."""
    uid = job["metadata"]["uid"]
    own = (pod for pod in pods if any(o["uid"] == uid for o in pod["metadata"].get("ownerReferences") or []))
    found = (parse_report(RevocationReport, ended.message) for pod in own if (ended := termination(pod)))
    return [report for report in found if report is not None]


def _attempt_count(job: Job) -> int:
    status: Mapping[str, Any] = job.get("status", {})
    return int(status.get("succeeded") or 0) + int(status.get("failed") or 0)


def _sum(reports: Sequence[RevocationReport]) -> RevocationCounts:
    """The counts of all attempts together: each finds only what those before it have left."""
    each = [report.sessions for report in reports]
    revoked = sum(counts.revoked for counts in each)
    # No attempt leaves more than the one before it.
    left = min((counts.left for counts in each), default=0)
    would_go = max((report.sessions.found for report in reports if report.dry_run), default=0)
    return RevocationCounts(
        found=_bounded(max(would_go, revoked + left)),
        revoked=_bounded(revoked),
        left=left,
        database_rows=_bounded(sum(counts.database_rows for counts in each)),
        redis_keys=_bounded(sum(counts.redis_keys for counts in each)),
    )


def _bounded(count: int) -> int:
    """A sum of untrusted numbers, within what the status may hold."""
    return min(count, 2**53)


def _sessions(number: int) -> str:
    return "1 session" if number == 1 else f"{number:,} sessions"


def _generation(seen: Observation) -> int:
    return seen.revocation.metadata.generation or 0
