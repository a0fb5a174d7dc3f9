"""R2.4: several sessions of the same user on the same client."""

from __future__ import annotations

from job.steps.context import RunContext
from job.steps.deletion import LiveSessionDeletion
from policy.spec import DuplicateAction
from stores.model.sessions import Cause
from stores.sql.duplicates import DuplicateQueries


def count_due_duplicates(context: RunContext, queries: DuplicateQueries, found: int) -> int:
    """How many duplicates are to be deleted. Counts all of them in ``tally.duplicate``.

    Args:
        context: the run.
        queries: of the duplicates.
        found: how many there are.
    """
    if not queries.are_known:
        context.log.info("duplicates skipped", because="columns.userId and columns.client are not both mapped")
        return 0
    context.tally.duplicate = found
    if context.spec.duplicates.action is DuplicateAction.REPORT:
        return 0
    if not queries.newest_is_known:
        context.log.warning(
            "duplicates only counted",
            because="duplicates.action KeepNewest needs stores.database.table.columns.createdAt",
        )
        return 0
    return context.tally.duplicate


def delete_duplicates(context: RunContext, queries: DuplicateQueries, due: int) -> None:
    """Deletes all but the newest session of a user on a client, if the policy wants that.

    Args:
        context: the run.
        queries: of the duplicates.
        due: what :func:`count_due_duplicates` has returned; part of ``tally.due``.

    Raises:
        StopRequestedError: the run has to stop; what was not reached remains in ``tally.due``.
    """
    context.progress.start("Duplicates", context.tally.duplicate)
    deleted = _delete(context, queries) if due and not context.dry_run else 0
    context.progress.finish(f"{context.tally.duplicate} found, {deleted} deleted")
    context.log.info("duplicates", found=context.tally.duplicate, deleted=deleted)


def _delete(context: RunContext, queries: DuplicateQueries) -> int:
    deletion = LiveSessionDeletion(context, Cause.DUPLICATE)
    for page in queries.pages():
        context.clock.checkpoint()
        allowed = deletion.allowed(page)
        deletion.count(page, allowed, queries.delete(allowed))
    deletion.finish()
    return deletion.deleted
