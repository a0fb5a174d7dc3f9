"""A SessionRevocation: log out a user, or end one session, once.

The user's id is personal data. It stands in the spec, because it must, and nowhere else: not in the status, nor in the
report that the container leaves.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from policy.model import Model, Rule
from policy.report import Count, Message, Reason, Timestamp
from policy.status import Condition


class RevocationTarget(Model):
    """Whose sessions are revoked: the part of the spec that the container gets."""

    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Id of the user to log out everywhere, exactly as it is stored. It can be read by everybody who may read this
    resource, or Jobs and Pods in its namespace."""
    session_hash: Annotated[str, Field(pattern=r"^s:[0-9a-f]{20}$")] | None = None
    """The one session to revoke, by its hash in logs and alerts (s:…). The policy needs logs.hashKeyFrom: without it,
    hashes differ from run to run."""

    rules = (
        Rule(
            cel="has(self.user) != has(self.sessionHash)",
            message="name either user or sessionHash",
            holds=lambda s: (s.user is None) != (s.session_hash is None),
        ),
    )


class SessionRevocationSpec(RevocationTarget):
    """Whose sessions are revoked, in which stores, and how long the outcome is kept. Immutable."""

    policy_name: Annotated[str, Field(min_length=1, max_length=253)]
    """The SessionPolicy in the same namespace that describes the stores. Its dryRun applies; it may be suspended."""
    reason: Annotated[str, Field(max_length=512)] | None = None
    """Why, for people, e.g. a ticket number. Not secret; shown nowhere else."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=366 * 24 * 3600)] = 86400
    """How long the resource and its Job are kept after it has finished, in seconds."""


class RevocationCounts(Model):
    """Sessions, each counted once however many stores have it."""

    found: Count = 0
    """Sessions of the user, or with the hash, that were found."""
    revoked: Count = 0
    """Sessions deleted from all stores; 0 in a dry run."""
    left: Count = 0
    """Sessions not deleted, because the application kept their rows locked."""
    database_rows: Count = 0
    """Rows deleted from the database."""
    redis_keys: Count = 0
    """Session keys deleted from Redis."""


class RevocationReport(Model):
    """What the container leaves in its termination message; untrusted, like the report of a run."""

    reason: Reason
    """How it ended, in one CamelCase word."""
    message: Message
    """How it ended, for people."""
    dry_run: bool = False
    """Whether it was a dry run, which changes nothing."""
    sessions: RevocationCounts = RevocationCounts()
    """Counts of this attempt."""


class RevocationConditionType(StrEnum):
    """The conditions a SessionRevocation may have."""

    COMPLETE = "Complete"
    FAILED = "Failed"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class RevocationCondition(Condition):
    """One aspect of the revocation's state, by Kubernetes' conventions."""

    type: RevocationConditionType  # type: ignore[assignment]
    """Complete always; Failed, Reconciling (not ended yet) and Stalled (cannot go on) only while true."""


class SessionRevocationStatus(Model):
    """Observed state of the revocation."""

    observed_generation: Count | None = None
    """metadata.generation the controller acted on."""
    conditions: list[RevocationCondition] = []
    """Complete and, while they hold, Failed, Reconciling and Stalled."""
    job_name: Annotated[str, Field(max_length=253)] | None = None
    """Name of the Job that carries out the revocation."""
    job_uid: Annotated[str, Field(max_length=64)] | None = Field(default=None, alias="jobUID")
    """UID of that Job. It is recorded before the Job may start, so that no second Job is ever created."""
    start_time: Timestamp | None = None
    """When the Job started."""
    completion_time: Timestamp | None = None
    """When the revocation finished, successfully or not."""
    dry_run: bool = False
    """Whether it was a dry run, because the policy says dryRun."""
    sessions: RevocationCounts | None = None
    """Sums over all attempts, as far as they reported."""
