"""What every step of a run is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from job.logs.run_logs import HashedSessionLog
from job.steps.progress import Progress
from job.steps.safety import Budget
from policy.manifest import SessionPolicy
from policy.spec import SessionPolicySpec
from stores.model.sessions import Sessions
from stores.model.tally import Tally
from stores.waiting.clock import RunClock

if TYPE_CHECKING:
    from stores.redis.store import RedisStore


@dataclass(frozen=True, slots=True)
class RunContext:
    """One run: what it obeys, what it works on, and what it counts.

    Attributes:
        policy: the policy as it was when the run began.
        dry_run: look, but change nothing (the policy's, or asked for on the command line).
        database: the store whose word decides, the database or, without one, Redis; holds the exclusive lock.
        redis: the Redis that follows the database; None where there is only one of them.
        clock: deadline and stop requests.
        tally: the run's counts, the only thing here that changes.
        progress: for people at a terminal.
        log: structured log of the run.
        budget: how many sessions the run may still delete.
        audit: the logs of single sessions; None for none.
    """

    policy: SessionPolicy
    dry_run: bool
    database: Sessions
    redis: RedisStore | None
    clock: RunClock
    tally: Tally
    progress: Progress
    log: Any
    budget: Budget = field(default_factory=Budget)
    audit: HashedSessionLog | None = None

    @property
    def spec(self) -> SessionPolicySpec:
        """The policy's spec."""
        return self.policy.spec
