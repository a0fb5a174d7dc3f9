"""The status of a SessionPolicy, which the controller writes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from policy.model import Model
from policy.report import Count, Message, Reason, RunReport, Timestamp

HISTORY_LIMIT = 10


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionType(StrEnum):
    """The conditions a policy may have."""

    READY = "Ready"
    LAST_RUN_SUCCEEDED = "LastRunSucceeded"
    STALLED = "Stalled"
    RUNNING = "Running"


class Condition(Model):
    """One aspect of the policy's state, by Kubernetes' conventions."""

    type: ConditionType
    """Ready, LastRunSucceeded; Stalled and Running only while true."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Reason
    """Why, in one CamelCase word."""
    message: Message = ""
    """Why, for people, with what to do about it."""
    last_transition_time: Timestamp
    """When status last changed."""
    observed_generation: Count
    """metadata.generation that the condition was set for."""


class Trigger(StrEnum):
    """What started a run."""

    SCHEDULE = "Schedule"
    REQUEST = "Request"
    """The policy's run-requested-at annotation."""
    MANUAL = "Manual"
    """A Job that somebody created from the CronJob."""


class RunRecord(RunReport):
    """A finished run in the status: the container's report, and what only the cluster knows."""

    job_name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the Job."""
    job_uid: Annotated[str, Field(min_length=1, max_length=64, alias="jobUID")]
    """UID of the Job; a Job is recorded once."""
    trigger: Trigger
    """Schedule, Request or Manual."""


class RunTotals(Model):
    """Sums over all runs since the policy was created. They never decrease; a Job is counted once."""

    runs_succeeded: Count = 0
    """Runs that succeeded, including dry runs."""
    runs_degraded: Count = 0
    """Runs that left something undone."""
    runs_failed: Count = 0
    """Runs that failed."""
    runs_skipped: Count = 0
    """Runs that did nothing because another one held the lock."""
    deleted_sessions: Count = 0
    """Sessions deleted; dry runs do not count."""
    missed_schedules: Count = 0
    """Times at which a run was due and none was started."""


class SessionPolicyStatus(Model):
    """What is known of the policy and its runs."""

    observed_generation: Count | None = None
    """metadata.generation the controller last acted on."""
    conditions: list[Condition] = []
    """Ready, LastRunSucceeded and, while they hold, Stalled and Running."""
    stalled_job_uid: Annotated[str, Field(max_length=64)] | None = Field(default=None, alias="stalledJobUID")
    """UID of the Job that Stalled is about, while it is about one."""
    cron_job_name: Annotated[str, Field(max_length=253)] | None = None
    """Name of the CronJob that starts the runs."""
    next_schedule_time: Timestamp | None = None
    """When the next run is due."""
    last_schedule_time: Timestamp | None = None
    """When a run was last started by schedule."""
    missed_schedules: Count = 0
    """Times since then at which a run was due and none was started within five minutes; 100 stands for 100 or more."""
    last_missed_schedule_time: Timestamp | None = None
    """The last of those times."""
    last_success_time: Timestamp | None = None
    """When a run that was no dry run last succeeded."""
    consecutive_failures: Count = 0
    """Runs since the last success that failed or were degraded; skipped ones do not count."""
    totals: RunTotals = RunTotals()
    """Sums over all runs since the policy was created."""
    last_handled_run_request: Annotated[str, Field(max_length=256)] | None = None
    """The value of the run-requested-at annotation that was last acted on."""
    last_run: RunRecord | None = None
    """The run that finished last."""
    history: Annotated[list[RunRecord], Field(max_length=HISTORY_LIMIT)] = []
    """The last ten runs, newest first."""
