"""R2.4: several sessions of the same user on the same client."""

from __future__ import annotations

from job.steps.context import RunContext
from job.steps.deletion import LiveSessionDeletion
from policy.spec import DuplicateAction
from stores.model.sessions import Cause
from stores.sql.queries import RuleQueries


def assess(context: RunContext, queries: RuleQueries, found: int) -> int:
    """Says how many duplicates are to go, before anything is deleted.

    Args:
        context: the run.
        queries: of the session table.
        found: how many there are.
    """
    if not queries.knows_duplicates:
        context.log.info("duplicates skipped", because="columns.userId and columns.client are not both mapped")
        return 0
    context.tally.duplicate = found
    if context.spec.duplicates.action is DuplicateAction.REPORT:
        return 0
    if not queries.knows_newest:
        context.log.warning(
            "duplicates are only counted",
            because="duplicates.action KeepNewest needs stores.database.table.columns.createdAt",
        )
        return 0
    return context.tally.duplicate


def step(context: RunContext, queries: RuleQueries, due: int) -> None:
    """Deletes all but the newest session of a user on a client, if the policy wants that.

    Args:
        context: the run.
        queries: of the session table.
        due: what :func:`assess` has returned, and is part of ``tally.due``.

    Raises:
        StopRequestedError: the run has to stop; what was not reached remains in ``tally.due``.
    """
    context.progress.start("Duplicates", context.tally.duplicate)
    deleted = _delete(context, queries) if due and not context.dry_run else 0
    context.progress.finish(f"{context.tally.duplicate} found, {deleted} deleted")
    context.log.info("duplicates", found=context.tally.duplicate, deleted=deleted)


def _delete(context: RunContext, queries: RuleQueries) -> int:
    deletion = LiveSessionDeletion(context, Cause.DUPLICATE)
    for page in queries.duplicate_pages():
        context.clock.checkpoint()
        allowed = deletion.allowed(page)
        deletion.count(page, allowed, queries.delete_duplicates(allowed))
    deletion.finish()
    return deletion.deleted
