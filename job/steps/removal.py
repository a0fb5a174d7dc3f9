"""What every step that deletes has to keep right, whatever stops it: the tally, the budget, and Redis."""

from __future__ import annotations

from collections.abc import Sequence

from job.steps.context import RunContext
from stores.model.sessions import Deletion, RangeDeletion, Session


def count(context: RunContext, result: Deletion | RangeDeletion) -> None:
    """Counts a batch that the database has deleted."""
    context.tally.deleted += len(result.deleted)
    context.tally.durations.add(result.deleted)
    context.tally.failed += result.failed
    context.budget.spend(len(result.deleted))


def delete_from_redis(context: RunContext, result: Deletion) -> None:
    """Deletes from Redis what the database has deleted, which always goes first."""
    if context.redis:
        context.tally.redis.deleted += context.redis.delete(result.deleted)


class Removal:
    """Live sessions that a step deletes, a batch at a time.

    Args:
        context: the run.
        due: how many the step is to delete; they are part of ``tally.remaining`` already.
    """

    def __init__(self, context: RunContext, due: int) -> None:
        self._context = context
        self._behind = context.tally.remaining - due
        self._unseen = due
        self.deleted = 0

    def reached(self, found: Sequence[Session]) -> Sequence[Session]:
        """Those of a batch that the run may still delete."""
        return found[: self._context.budget.take(len(found))]

    def count(self, found: Sequence[Session], reached: Sequence[Session], result: Deletion) -> None:
        """A batch was found, so much of it was reached, and this is what became of that."""
        self.deleted += len(result.deleted)
        self._context.tally.active -= len(result.deleted)
        count(self._context, result)
        delete_from_redis(self._context, result)
        self._unseen -= len(found)
        self._behind += len(found) - len(reached)
        self._context.tally.remaining = self._behind + max(0, self._unseen)
        self._context.progress.advance(len(found))

    def finish(self) -> None:
        """Everything was looked at: what has not been found again is not due any more."""
        self._context.tally.remaining = self._behind
