"""Missed schedules: runs that were due and were not started.

A run counts as missed once its starting deadline is over and the CronJob has started none since it was due. One that
was skipped because a later one was started instead does not: that cannot be seen afterwards. A due time counts only if
the CronJob has not changed since, so that a policy just created, resumed or changed has missed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from controller.runs.pods import Problem
from controller.runs.schedule import MOST_MISSED, look_again_seconds, missed_runs
from policy.names import RUN_REQUEST_ANNOTATION
from policy.spec import SessionPolicySpec
from policy.status import RunRecord, SessionPolicyStatus, Trigger

MISSED: Final = "MissedSchedule"
"""Reason of Stalled, and of Events."""

OVERRUN: Final = "Overrun"
"""Reason of Running when the run had not finished when the next was due."""

# The clocks of a control plane's parts may differ by so much.
CLOCK_TOLERANCE: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class ScheduleCheck:
    """Whether a CronJob started the runs that were due.

    Attributes:
        newly_missed: times at which a run was due and none was started, newest first; not those counted before.
        problem: what keeps all runs from being started, if that is certain.
        look_again_seconds: when to look again, as no event will tell that nothing happened.
    """

    newly_missed: tuple[datetime, ...] = ()
    problem: Problem | None = None
    look_again_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """A run that has not finished.

    Attributes:
        job_name: its Job.
        since: when that was created.
    """

    job_name: str
    since: datetime


def check_schedule(
    spec: SessionPolicySpec, cron_job: Mapping[str, Any], before: SessionPolicyStatus, now: datetime
) -> ScheduleCheck:
    """Compare what was due with what the CronJob started.

    Args:
        spec: the policy's spec, which the CronJob matches.
        cron_job: the policy's own CronJob.
        before: the policy's status until now.
        now: the present, by the control plane's clock.
    """
    if spec.suspend:
        return ScheduleCheck()
    started = last_schedule_time(cron_job)
    if started is not None and started > now + CLOCK_TOLERANCE:
        return ScheduleCheck(problem=_started_in_future(cron_job, started))
    known = (started, before.last_missed_schedule_time)
    since = max([_unchanged_since(cron_job), *(t for t in known if t is not None and t <= now + CLOCK_TOLERANCE)])
    missed = missed_runs(spec, since, now)
    return ScheduleCheck(missed, None, look_again_seconds(spec, max([since, *missed[:1]]), now))


def last_schedule_time(cron_job: Mapping[str, Any] | None) -> datetime | None:
    """When the CronJob last started a run, by schedule."""
    text = (cron_job or {}).get("status", {}).get("lastScheduleTime")
    return datetime.fromisoformat(text) if text else None


def missed_problem(
    missed: int, last: datetime | None, cron_job_name: str | None, history: Iterable[RunRecord]
) -> Problem | None:
    """Why a policy with nothing running is stalled by its missed runs; None if it is not.

    A run that ended after the last due time shows that runs can be started, or that this one was the obstacle.
    """
    if not missed or last is None or any(record.completion_time >= last for record in history):
        return None
    return Problem(
        MISSED,
        f"no run was started when one was due at {_text(last)} ({count_text(missed)} since a run was last started by "
        f"schedule); see kubectl describe cronjob {cron_job_name} and check kube-controller-manager. "
        f"To run now, annotate the policy: {RUN_REQUEST_ANNOTATION}=now",
    )


def overlap(last: datetime | None, history: Iterable[RunRecord], unfinished: UnfinishedRun | None) -> str:
    """Name of the Job that kept a due run from starting, as CronJobs never run two at once; empty if there was none.

    Args:
        last: the due time.
        history: the recorded runs.
        unfinished: the run that was started by schedule and has not finished.
    """
    if last is None:
        return ""
    for record in history:
        if record.trigger is Trigger.SCHEDULE and record.start_time <= last <= record.completion_time:
            return record.job_name
    return unfinished.job_name if unfinished and unfinished.since <= last else ""


def overlap_text(missed: int, last: datetime, job: str) -> str:
    """The message about a run that could not start because the one before had not finished."""
    return (
        f"no run was started at {_text(last)} ({count_text(missed)}) because Job {job} had not finished: runs take "
        "longer than the schedule's interval; start them less often or speed them up (spec.job.parallelism)"
    )


def count_text(missed: int) -> str:
    """The number of missed runs, for people."""
    return f"{missed} or more missed" if missed >= MOST_MISSED else f"{missed} missed"


def _unchanged_since(cron_job: Mapping[str, Any]) -> datetime:
    """When the CronJob was created, or its spec last changed, by the API server's clock."""
    metadata = cron_job["metadata"]
    written = [
        entry["time"]
        for entry in metadata.get("managedFields") or []
        if entry.get("time") and "f:spec" in (entry.get("fieldsV1") or {})
    ]
    return max(datetime.fromisoformat(text) for text in [metadata["creationTimestamp"], *written])


def _started_in_future(cron_job: Mapping[str, Any], started: datetime) -> Problem:
    name = cron_job["metadata"]["name"]
    return Problem(
        "LastScheduleInFuture",
        f"CronJob {name} has a lastScheduleTime in the future, {_text(started)}, because a clock was wrong, and starts "
        f"no run before then; kubectl delete cronjob {name}: it is created again at once",
    )


def _text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
