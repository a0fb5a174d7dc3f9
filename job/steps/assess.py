"""Before anything is deleted: adds up what would go, and refuses if it is more than the policy allows."""

from __future__ import annotations

from dataclasses import dataclass

from job.steps.context import RunContext
from job.steps.expired import expired_batches
from job.steps.safety import exceeds_share, share_exceeded
from policy.spec import OnExceed
from stores.model.errors import SafetyLimitError
from stores.model.sessions import Cause, SessionTotals


@dataclass(frozen=True, slots=True)
class Forecast:
    """How many sessions there are, and how many each step is going to delete; counted before anything is deleted.

    Attributes:
        totals: how many sessions there are.
        over_limit: live sessions over their user's limit.
        evicting: how many of them the limit is to cost their users, after what other steps delete.
        abnormal: live sessions that rules are going to delete.
        duplicates: live sessions that are going to be deleted as duplicates.
    """

    totals: SessionTotals
    over_limit: int = 0
    evicting: int = 0
    abnormal: int = 0
    duplicates: int = 0


def forecast_by_store(context: RunContext, limit: int) -> Forecast:
    """Asks the store; for a Redis without a database, where nothing but the timeouts and the limit deletes.

    Args:
        context: the run.
        limit: sessions a user may have; 0 for any number.
    """
    totals = context.sessions.totals()
    over = context.sessions.count_over_limit(limit, context.spec.concurrency.exempt_users) if limit else 0
    return Forecast(totals, over, over)


def check_deletion_share(context: RunContext, forecast: Forecast) -> bool:
    """Puts the counts into the tally, and refuses what is too much.

    Returns whether a real run would refuse to delete so many. Only a dry run returns it: it is there to show what a run
    would meet.

    Args:
        context: the run.
        forecast: what there is.

    Raises:
        SafetyLimitError: more would go than the policy allows.
    """
    tally, policy, safety = context.tally, context.spec.concurrency, context.spec.safety
    total = forecast.totals.total
    tally.active, tally.expired = forecast.totals.active, forecast.totals.expired
    tally.over_limit = forecast.over_limit
    evicting = 0 if policy.on_exceed is OnExceed.REPORT else forecast.evicting
    live = evicting + forecast.abnormal + forecast.duplicates
    if context.redis and exceeds_share(tally.expired + live, total, safety):
        # An application may note accesses in Redis only; then the database alone would call everybody idle.
        kept = sum(batch.found - len(batch.due) for batch in expired_batches(context))
        tally.expired -= kept
        tally.active += kept
    if not context.dry_run:
        tally.due.expect(Cause.EXPIRED, tally.expired)
        tally.due.expect(Cause.EVICTED, evicting)
        tally.due.expect(Cause.ABNORMAL, forecast.abnormal)
        tally.due.expect(Cause.DUPLICATE, forecast.duplicates)
    # A session that a rule applies to may also be over the limit, or a duplicate, and is deleted only once.
    exceeded = share_exceeded(min(tally.expired + live, total), total, safety)
    if exceeded is None:
        return False
    if context.dry_run:
        context.log.warning("safety limit exceeded", because=f"{exceeded}; a run would refuse to delete them")
        return True
    raise SafetyLimitError(
        f"refused: {exceeded}; nothing was deleted. Check that the policy points at the right store. "
        "If a dry run shows that they should go, raise the limit for one run"
    )
