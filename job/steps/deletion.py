"""What every step that deletes has to keep right, whatever stops it: the counts, the deletion limit, and Redis."""

from __future__ import annotations

from collections.abc import Sequence

from job.steps.context import RunContext
from stores.model.sessions import Cause, Deletion, RangeDeletion, Session


def count_deleted(context: RunContext, result: Deletion | RangeDeletion) -> None:
    """Counts a batch that the database has deleted."""
    context.tally.deleted += len(result.deleted)
    context.tally.durations.add(result.deleted)
    context.tally.failed += result.failed
    context.deletion_limit.count(len(result.deleted))


def delete_from_redis(context: RunContext, result: Deletion) -> None:
    """Deletes from Redis what the database has deleted, which always goes first."""
    if context.redis:
        context.tally.redis.deleted += context.redis.delete(result.deleted).session_keys


class LiveSessionDeletion:
    """Counts the live sessions that a step deletes, a batch at a time, and deletes them from Redis, too.

    Args:
        context: the run.
        cause: why the sessions go; ``tally.due`` knows already how many were found.
    """

    def __init__(self, context: RunContext, cause: Cause) -> None:
        self._context = context
        self._cause = cause
        self.deleted = 0

    def allowed(self, found: Sequence[Session]) -> Sequence[Session]:
        """Those of a batch that the run may still delete."""
        return found[: self._context.deletion_limit.allowed(len(found))]

    def count(self, found: Sequence[Session], allowed: Sequence[Session], result: Deletion) -> None:
        """Counts a batch that the database has deleted.

        Args:
            found: the batch.
            allowed: those that the database was told to delete.
            result: what became of these.
        """
        self.deleted += len(result.deleted)
        self._context.tally.active -= len(result.deleted)
        count_deleted(self._context, result)
        delete_from_redis(self._context, result)
        self._context.tally.due.settle(self._cause, len(found), kept_back=len(found) - len(allowed))
        self._context.progress.advance(len(found))

    def finish(self) -> None:
        """Everything was looked at: what has not been found again is not due any more."""
        self._context.tally.due.finish(self._cause)
