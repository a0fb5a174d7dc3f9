"""The report of one run: what the cleanup container leaves in its termination message.

The controller treats it as untrusted input: it is parsed strictly, and every field is bounded, before any of it
reaches a status.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, PlainSerializer, WithJsonSchema

from policy.model import Model

MAX_MESSAGE_LENGTH = 512


def _to_utc_seconds(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs a zone")
    return value.astimezone(UTC).replace(microsecond=0)


Timestamp = Annotated[
    datetime,
    AfterValidator(_to_utc_seconds),
    PlainSerializer(lambda value: value.strftime("%Y-%m-%dT%H:%M:%SZ"), return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A point in time as Kubernetes writes it: RFC 3339, UTC, whole seconds."""


def printable(text: str, limit: int = MAX_MESSAGE_LENGTH) -> str:
    """The text on one line, without control characters, cut to the limit with an ellipsis."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


Message = Annotated[str, Field(max_length=MAX_MESSAGE_LENGTH), AfterValidator(printable)]
Reason = Annotated[str, Field(pattern=r"^[A-Za-z]([A-Za-z0-9]{0,62}[A-Za-z0-9])?$")]
MAX_COUNT = 2**53
"""What every reader of JSON can hold without rounding."""

Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
TraceID = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Outcome(StrEnum):
    """How a run ended."""

    SUCCEEDED = "Succeeded"
    DEGRADED = "Degraded"
    """Not all work was done: a batch failed, or a limit or the deadline was reached."""
    SKIPPED = "Skipped"
    """Another run held the lock; nothing was done."""
    FAILED = "Failed"


class SessionCounts(Model):
    """Sessions in the database, counted during the run. In a dry run nothing is deleted."""

    active: Count = 0
    """Live sessions after the run."""
    expired: Count = 0
    """Found past their timeout."""
    over_limit: Count = 0
    """Live sessions found over their user's limit."""
    evicted: Count = 0
    """Deleted because their user was over the limit."""
    duplicate: Count = 0
    """Found as duplicates of a newer session of the same user on the same client."""
    abnormal: Count = 0
    """Found abnormal or invalid by the policy's rules."""
    deleted: Count = 0
    """Deleted, for any reason."""
    failed: Count = 0
    """Could not be deleted."""
    remaining: Count = 0
    """Due for deletion but still there: the run ended, or a limit was reached, before them."""


class RedisCounts(Model):
    """What happened in Redis."""

    sessions: Count = 0
    """Session keys seen."""
    deleted: Count = 0
    """Session keys deleted, for any reason."""
    orphaned: Count = 0
    """Session keys found without a live database row."""
    missing: Count = 0
    """Live database rows found without a session key."""
    index_entries_removed: Count = 0
    """Entries removed from user indexes."""
    ttl_added: Count = 0
    """Session keys that had no TTL and got one."""


class Vitals(Model):
    """Measurements of the session stores. A value that is not known is not set."""

    redis_memory_bytes: Count | None = None
    """Memory that Redis uses, all of its nodes together, in bytes."""
    redis_hit_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of look-ups in Redis that found their key, since its servers started; not set for few look-ups."""
    created_per_hour: Annotated[float, Field(ge=0, le=10**9)] | None = None
    """Sessions created per hour since the previous run, without those that the application has deleted since."""
    average_session_seconds: Count | None = None
    """Average time from creation to last use of the sessions that this run deleted, in seconds."""


MAX_ALERTS = 8


class Alert(Model):
    """An alert of the run."""

    reason: Reason
    """Name of the alert, in one CamelCase word that programs may compare."""
    count: Count
    """Number of sessions concerned, or the measured value."""


class RunReport(Model):
    """The outcome of one run."""

    outcome: Outcome
    """How the run ended: Succeeded, Degraded, Skipped or Failed."""
    reason: Reason
    """Why, in one CamelCase word that programs may compare."""
    message: Message
    """Why, for people."""
    start_time: Timestamp
    """When the run began."""
    completion_time: Timestamp
    """When the run ended."""
    duration_seconds: Annotated[float, Field(ge=0, le=10**7)]
    """How long the run took, in seconds."""
    dry_run: bool = False
    """Whether the run was a dry run, which changes nothing."""
    policy_generation: Count | None = None
    """metadata.generation of the policy that the run used."""
    sessions: SessionCounts = SessionCounts()
    """Sessions in the database."""
    redis: RedisCounts | None = None
    """Redis, where the policy has one."""
    vitals: Vitals | None = None
    """Redis memory and hit ratio, creation rate and average session duration, as far as they were measured."""
    estimated_seconds_remaining: Count | None = None
    """Estimated time to delete the remaining sessions, in seconds, at the rate of this run. Not set if nothing remains,
    or if this run deleted nothing to measure a rate by."""
    alerts: Annotated[list[Alert], Field(max_length=MAX_ALERTS)] = []
    """Alerts of the run, whether or not they were sent."""
    trace_id: Annotated[TraceID | None, Field(alias="traceID")] = None
    """Id of the run's OpenTelemetry trace; not set if no collector is known to have received it."""
