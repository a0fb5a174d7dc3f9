"""R2.2: delete the sessions past their timeout, in batches, from the database and then from Redis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from job.context import RunContext
from job.sessions import Session
from job.steps.removal import settle


@dataclass(frozen=True, slots=True)
class Batch:
    """Some sessions that the database calls expired.

    Attributes:
        found: how many.
        due: those of them that Redis has not seen in use since.
    """

    found: int
    due: list[Session]


def delete_expired(context: RunContext, found: int) -> int:
    """Deletes what has expired.

    The database goes first, because its statement looks again at each row: a session used a moment ago keeps both its
    row and its Redis key. If the run dies in between, the Redis synchronisation of the next run finds the rest.

    Args:
        context: the run.
        found: sessions the database calls expired.

    Returns:
        How many the database calls idle but Redis saw in use: they are live.

    Raises:
        StopRequestedError: the run has to stop; what was not reached stays in ``tally.remaining``.
    """
    tally = context.tally
    context.progress.start("Expired sessions", found)
    behind, unseen, kept = tally.remaining - (0 if context.dry_run else tally.expired), found, 0
    for batch in expired_batches(context):
        context.clock.checkpoint()
        unseen -= batch.found
        kept += batch.found - len(batch.due)
        tally.expired = max(0, found - kept)
        if not context.dry_run:
            reached = _delete(context, batch.due)
            tally.remaining = behind + max(0, unseen) + len(batch.due) - reached
            behind += len(batch.due) - reached
        context.progress.advance(batch.found)
    tally.remaining = behind
    context.progress.finish(f"{tally.expired:,} found, {tally.deleted:,} deleted")
    context.log.info("expired", found=tally.expired, deleted=tally.deleted, failed=tally.failed, keptByRedis=kept)
    return kept


def _delete(context: RunContext, due: Sequence[Session]) -> int:
    """Deletes a batch. Returns how many of it were reached before the run's limit of deletions."""
    reached = context.budget.take(len(due))
    settle(context, context.database.delete_expired(due[:reached]))
    return reached


def expired_batches(context: RunContext) -> Iterator[Batch]:
    """The expired sessions, a batch at a time.

    Only idleness can be disproved by Redis: a session past its absolute timeout or the application's own expiry has
    ended however much it is used.
    """
    for page in context.database.ended_pages():
        yield Batch(len(page), page)
    for cutoff, page in context.database.idle_pages():
        yield Batch(len(page), _not_used_since(context, page, cutoff))


def _not_used_since(context: RunContext, page: list[Session], cutoff: datetime) -> list[Session]:
    if context.redis is None:
        return page
    accesses = context.redis.last_accesses([session.key for session in page])
    return [s for s in page if (used := accesses.get(s.key)) is None or used < cutoff]
