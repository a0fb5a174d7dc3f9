"""R2.4: several sessions of the same user on the same client."""

from __future__ import annotations

from job.context import RunContext
from job.database.queries import RuleQueries
from job.safety import Budget
from policy.spec import DuplicateAction


def assess(context: RunContext, queries: RuleQueries) -> int:
    """Counts duplicates, before anything is deleted. Returns how many of them are to go."""
    if not queries.knows_duplicates:
        context.log.info("duplicates off", because="columns.userId and columns.client are not both mapped")
        return 0
    context.tally.duplicate = queries.count_duplicates()
    if context.spec.duplicates.action is DuplicateAction.REPORT:
        return 0
    if not queries.knows_newest:
        context.log.warning(
            "duplicates are only counted",
            because="duplicates.action KeepNewest needs stores.database.table.columns.createdAt",
        )
        return 0
    return context.tally.duplicate


def step(context: RunContext, queries: RuleQueries, due: int, budget: Budget) -> None:
    """Deletes all but the newest session of a user on a client, if the policy wants that.

    Args:
        context: the run.
        queries: of the session table.
        due: what :func:`assess` has returned, and is part of ``tally.remaining``.
        budget: how many sessions the run may still delete.

    Raises:
        StopRequestedError: the run has to stop; what was not reached stays in ``tally.remaining``.
    """
    context.progress.start("Duplicates", context.tally.duplicate)
    deleted = _delete(context, queries, due, budget) if due and not context.dry_run else 0
    context.progress.finish(f"{context.tally.duplicate} found, {deleted} deleted")
    context.log.info("duplicates", found=context.tally.duplicate, deleted=deleted)


def _delete(context: RunContext, queries: RuleQueries, due: int, budget: Budget) -> int:
    tally = context.tally
    behind, unseen, deleted = tally.remaining - due, due, 0
    for page in queries.duplicate_pages():
        context.clock.checkpoint()
        reached = page[: budget.take(len(page))]
        result = queries.delete_duplicates(reached)
        deleted += len(result.deleted)
        tally.deleted += len(result.deleted)
        tally.active -= len(result.deleted)
        tally.failed += result.failed
        budget.spend(len(result.deleted))
        if context.redis:
            tally.redis.deleted += context.redis.delete(result.deleted)
        unseen -= len(page)
        behind += len(page) - len(reached)
        tally.remaining = behind + max(0, unseen)
        context.progress.advance(len(page))
    tally.remaining = behind
    return deleted
