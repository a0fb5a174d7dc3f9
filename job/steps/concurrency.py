"""R2.5: a user over the maximum of concurrent sessions loses the excess, in every store."""

from __future__ import annotations

from job.steps.context import RunContext
from job.steps.removal import Removal
from policy.spec import OnExceed


def enforce_limit(context: RunContext, limit: int, due: int) -> None:
    """Evicts the sessions over their user's limit, unless the policy only wants them reported.

    Args:
        context: the run.
        limit: sessions a user may have; 0 for any number.
        due: how many of ``tally.remaining`` are to go by the limit.

    Raises:
        StopRequestedError: the run has to stop; what was not reached stays in ``tally.remaining``.
    """
    tally, policy = context.tally, context.spec.concurrency
    if limit == 0 or tally.over_limit == 0:
        return
    context.progress.start("Sessions over the limit", tally.over_limit)
    if policy.on_exceed is not OnExceed.REPORT and not context.dry_run:
        _evict(context, limit, due)
    context.progress.finish(f"{tally.over_limit:,} found, {tally.evicted:,} evicted")
    context.log.info("limit per user", limit=limit, overLimit=tally.over_limit, evicted=tally.evicted)


def _evict(context: RunContext, limit: int, due: int) -> None:
    tally, policy = context.tally, context.spec.concurrency
    removal = Removal(context, due)
    for page in context.database.over_limit_pages(limit, policy.on_exceed, policy.exempt_users):
        context.clock.checkpoint()
        reached = removal.reached(page)
        result = context.database.delete_over_limit(reached, limit, policy.on_exceed)
        tally.evicted += len(result.deleted)
        removal.count(page, reached, result)
    removal.finish()
