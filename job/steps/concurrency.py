"""R2.5: a user over the maximum of concurrent sessions loses the excess, in every store."""

from __future__ import annotations

from job.steps.context import RunContext
from job.steps.deletion import LiveSessionDeletion
from policy.spec import OnExceed
from stores.model.sessions import Cause


def enforce_limit(context: RunContext, limit: int) -> None:
    """Evicts the sessions over their user's limit, unless the policy only wants them reported.

    Args:
        context: the run.
        limit: sessions a user may have; 0 for any number.

    Raises:
        StopRequestedError: the run has to stop; what was not reached remains in ``tally.due``.
    """
    tally, policy = context.tally, context.spec.concurrency
    if limit == 0 or tally.over_limit == 0:
        return
    context.progress.start("Sessions over the limit", tally.over_limit)
    if policy.on_exceed is not OnExceed.REPORT and not context.dry_run:
        _evict(context, limit)
    context.progress.finish(f"{tally.over_limit:,} found, {tally.evicted:,} evicted")
    context.log.info("concurrency limit", limit=limit, overLimit=tally.over_limit, evicted=tally.evicted)


def _evict(context: RunContext, limit: int) -> None:
    tally, policy = context.tally, context.spec.concurrency
    deletion = LiveSessionDeletion(context, Cause.EVICTED)
    for page in context.sessions.over_limit_pages(limit, policy.on_exceed, policy.exempt_users):
        context.clock.checkpoint()
        allowed = deletion.allowed(page)
        result = context.sessions.delete_over_limit(allowed, limit, policy.on_exceed)
        tally.evicted += len(result.deleted)
        deletion.count(page, allowed, result)
    deletion.finish()
