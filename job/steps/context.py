"""What every step of a run works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from job.logs.run_logs import HashedSessionLog
from job.steps.progress import Progress
from job.steps.safety import DeletionLimit
from policy.manifest import SessionPolicy
from policy.spec import SessionPolicySpec
from stores.model.sessions import Sessions
from stores.model.tally import Tally
from stores.waiting.clock import RunClock

if TYPE_CHECKING:
    from stores.redis.store import RedisStore


@dataclass(frozen=True, slots=True)
class RunContext:
    """One run: its policy, its stores, and what it counts.

    Attributes:
        policy: the policy as it was when the run began.
        dry_run: change nothing, because the policy or the command line says so.
        sessions: the session store: the database or, without one, Redis. It holds the exclusive lock.
        redis: the Redis that is made to agree with the database; None where the policy has only one of them.
        clock: deadline and stop requests.
        tally: the run's counts.
        progress: for people at a terminal.
        log: structured log of the run.
        deletion_limit: how many sessions the run may still delete.
        audit: the logs of single sessions; None for none.
    """

    policy: SessionPolicy
    dry_run: bool
    sessions: Sessions
    redis: RedisStore | None
    clock: RunClock
    tally: Tally
    progress: Progress
    log: Any
    deletion_limit: DeletionLimit = field(default_factory=DeletionLimit)
    audit: HashedSessionLog | None = None

    @property
    def spec(self) -> SessionPolicySpec:
        """The policy's spec."""
        return self.policy.spec
