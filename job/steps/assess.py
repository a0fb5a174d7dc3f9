"""Before anything is deleted: count what would go, and refuse if it is more than the policy allows."""

from __future__ import annotations

from dataclasses import dataclass

from job.steps.context import RunContext
from job.steps.expired import expired_batches
from job.steps.safety import exceeds_share, share_refusal
from policy.spec import OnExceed
from stores.model.errors import SafetyLimitError
from stores.model.sessions import SessionTotals


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a run is going to do.

    Attributes:
        census: how many sessions there are.
        over_limit: live sessions over their user's limit.
        evicting: how many of them are to go by the limit, and by nothing before.
        would_refuse: in a dry run, whether a real run would refuse to delete so many.
    """

    census: SessionTotals
    over_limit: int
    evicting: int
    would_refuse: bool = False


@dataclass(frozen=True, slots=True)
class Counted:
    """What there is, counted before anything is deleted.

    Attributes:
        census: how many sessions.
        over_limit: live sessions over their user's limit.
        evicting: how many of them the limit is to cost their users, after what other steps delete.
        also_due: live sessions that these other steps are going to delete.
    """

    census: SessionTotals
    over_limit: int = 0
    evicting: int = 0
    also_due: int = 0


def count(context: RunContext, limit: int) -> Counted:
    """Asks the store; for a Redis without a database, where nothing but the timeouts and the limit deletes.

    Args:
        context: the run.
        limit: sessions a user may have; 0 for any number.
    """
    census = context.database.totals()
    over = context.database.count_over_limit(limit, context.spec.concurrency.exempt_users) if limit else 0
    return Counted(census, over, over)


def assess(context: RunContext, counted: Counted) -> Assessment:
    """Puts the counts into the tally, and refuses what is too much.

    Args:
        context: the run.
        counted: what there is.

    Raises:
        SafetyLimitError: more would go than the policy allows.
    """
    tally, policy, safety = context.tally, context.spec.concurrency, context.spec.safety
    census, also_due = counted.census, counted.also_due
    tally.active, tally.expired, tally.over_limit = census.active, census.expired, counted.over_limit
    evicting = 0 if policy.on_exceed is OnExceed.REPORT else counted.evicting
    if context.redis and exceeds_share(tally.expired + evicting + also_due, census.total, safety):
        # An application may note accesses in Redis only; then the database alone would call everybody idle.
        kept = sum(batch.found - len(batch.due) for batch in expired_batches(context))
        tally.expired -= kept
        tally.active += kept
    tally.remaining = 0 if context.dry_run else tally.expired + evicting + also_due
    # What a rule applies to may be due to the limit or as a duplicate as well, and yet goes only once.
    going = min(tally.expired + evicting + also_due, census.total)
    refusal = share_refusal(going, census.total, safety)
    if refusal and not context.dry_run:
        raise SafetyLimitError(refusal)
    if refusal:
        # A dry run goes on: it is there to show what a run would meet.
        context.log.warning("safety limit", because=f"{refusal}: a run would stop here")
    return Assessment(census, counted.over_limit, evicting, would_refuse=refusal is not None)
