"""Before anything is deleted: count what would go, and refuse if it is more than the policy allows."""

from __future__ import annotations

from dataclasses import dataclass

from job.context import RunContext
from job.errors import SafetyLimitError
from job.safety import exceeds_share, share_refusal
from job.sessions import Census
from job.steps.expired import expired_batches
from policy.spec import OnExceed


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a run is going to do.

    Attributes:
        census: how many sessions there are.
        over_limit: live sessions over their user's limit.
        would_refuse: in a dry run, whether a real run would refuse to delete so many.
    """

    census: Census
    over_limit: int
    would_refuse: bool = False


def assess(context: RunContext, limit: int, also_due: int = 0) -> Assessment:
    """Counts sessions, expired ones and those over the limit.

    Args:
        context: the run.
        limit: sessions a user may have; 0 for any number.
        also_due: live sessions that other steps are going to delete: they count in the share.

    Raises:
        SafetyLimitError: more would go than the policy allows.
    """
    tally, policy, safety = context.tally, context.spec.concurrency, context.spec.safety
    census = context.database.census()
    over_limit = context.database.count_over_limit(limit, policy.exempt_users) if limit else 0
    tally.active, tally.expired, tally.over_limit = census.active, census.expired, over_limit
    evicting = 0 if policy.on_exceed is OnExceed.REPORT else over_limit
    if context.redis and exceeds_share(tally.expired + evicting + also_due, census.total, safety):
        # An application may note accesses in Redis only; then the database alone would call everybody idle.
        kept = sum(batch.found - len(batch.due) for batch in expired_batches(context))
        tally.expired -= kept
        tally.active += kept
    tally.remaining = 0 if context.dry_run else tally.expired + evicting + also_due
    # A session may be due to several steps, and yet goes only once.
    going = min(tally.expired + evicting + also_due, census.total)
    refusal = share_refusal(going, census.total, safety)
    if refusal and not context.dry_run:
        raise SafetyLimitError(refusal)
    if refusal:
        # A dry run goes on: it is there to show what a run would meet.
        context.log.warning("safety limit", because=f"{refusal}: a run would stop here")
    return Assessment(census, over_limit, would_refuse=refusal is not None)
