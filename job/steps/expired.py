"""R2.2: delete the sessions past their timeout, in batches, from the database and then from Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from job.steps.context import RunContext
from job.steps.deletion import count_deleted, delete_from_redis
from stores.model.sessions import Candidate, Cause, RangeDeletion, Session
from stores.waiting.background import BackgroundCall
from stores.waiting.pacing import rest_seconds

if TYPE_CHECKING:
    from stores.model.key_range import KeyRange


@dataclass(frozen=True, slots=True)
class ExpiredBatch:
    """Some sessions that the database calls expired.

    Attributes:
        found: how many.
        due: those of them that Redis has not seen in use since.
    """

    found: int
    due: list[Session]


@dataclass(frozen=True, slots=True)
class _Settled:
    """A batch that the database has dealt with.

    Attributes:
        found: how many sessions the database called expired.
        kept_by_redis: those of them that Redis saw in use: they are live.
        kept_back: those that stay due, because of ``safety.maxDeletions``.
        complete: what is left to do while the database is at work on the next batch.
    """

    found: int
    kept_by_redis: int
    kept_back: int
    complete: Callable[[], None]


def delete_expired(context: RunContext, found: int, key_ranges: Sequence[KeyRange] | None = None) -> int:
    """Deletes what has expired.

    The database goes first, because its statement looks again at each row: a session used a moment ago keeps both its
    row and its Redis key. If the run dies in between, the Redis synchronisation of the next run finds the rest.

    Args:
        context: the run.
        found: sessions the database calls expired.
        key_ranges: the parts of the table to look at; None for all of it.

    Returns:
        How many the database calls idle but Redis saw in use: they are live.

    Raises:
        StopRequestedError: the run has to stop; what was not reached remains in ``tally.due``.
    """
    tally = context.tally
    context.progress.start("Expired sessions", found)
    if found and not context.dry_run and (choice := context.sessions.strategy()):
        context.log.info("strategy chosen", chosen=choice.strategy.value, because=choice.because, **choice.figures())
    kept = 0
    batches = _settled_batches(context, key_ranges)
    # A batch is completed while the server is at work on the next one.
    with BackgroundCall() as background:
        while True:
            context.clock.checkpoint()
            begun = time.monotonic()
            batch = next(batches, None)
            if batch is None:
                break
            kept += batch.kept_by_redis
            tally.expired = max(0, found - kept)
            if not context.dry_run:
                tally.due.expect(Cause.EXPIRED, found)
                tally.due.settle(Cause.EXPIRED, batch.found, batch.kept_back)
                # Last, for it waits for the batch before: if that hangs, what was counted until then is true.
                background.start(batch.complete)
            context.progress.advance(batch.found)
            _throttle(context, time.monotonic() - begun)
    tally.due.finish(Cause.EXPIRED)  # what was not met is in use, or not due any more
    context.progress.finish(f"{tally.expired:,} found, {tally.deleted:,} deleted")
    context.log.info(
        "expired sessions", found=tally.expired, deleted=tally.deleted, failed=tally.failed, keptByRedis=kept
    )
    return kept


def _settled_batches(context: RunContext, key_ranges: Sequence[KeyRange] | None) -> Iterator[_Settled]:
    """The expired sessions, deleted from the database a batch at a time; only looked at in a dry run."""
    # Where neither Redis nor a limit has a say, finding and deleting may be one statement.
    if context.dry_run or context.redis is not None or context.deletion_limit.is_set:
        for batch in expired_batches(context, key_ranges):
            yield _delete(context, batch)
    else:
        for swept in context.sessions.bulk_delete_expired(key_ranges):
            yield _Settled(len(swept.deleted) + swept.failed, 0, 0, partial(_record, context, swept))


def _delete(context: RunContext, batch: ExpiredBatch) -> _Settled:
    kept_by_redis = batch.found - len(batch.due)
    if context.dry_run:
        return _Settled(batch.found, kept_by_redis, 0, lambda: None)
    allowed = context.deletion_limit.allowed(len(batch.due))
    result = context.sessions.delete_expired(batch.due[:allowed])
    count_deleted(context, result)
    return _Settled(batch.found, kept_by_redis, len(batch.due) - allowed, partial(delete_from_redis, context, result))


def _record(context: RunContext, swept: RangeDeletion) -> None:
    if context.audit:
        context.audit.deleted(swept.unlogged, Cause.EXPIRED.value)
    count_deleted(context, swept)


def _throttle(context: RunContext, busy_seconds: float) -> None:
    if context.dry_run:
        return
    if seconds := rest_seconds(busy_seconds, context.spec.cleanup.throttle_percent):
        context.clock.wait(seconds)


def expired_batches(context: RunContext, key_ranges: Sequence[KeyRange] | None = None) -> Iterator[ExpiredBatch]:
    """The expired sessions, a batch at a time.

    Only idleness can be disproved by Redis: a session past its absolute timeout or the application's own expiry has
    ended however much it is used.
    """
    for page in context.sessions.expired_pages(key_ranges):
        yield ExpiredBatch(len(page), _due(context, page))


def _due(context: RunContext, page: Sequence[Candidate]) -> list[Session]:
    idle = [c.session.key for c in page if c.unused_since] if context.redis else []
    accesses = context.redis.last_accesses(idle) if context.redis and idle else {}
    return [c.session for c in page if not _used(c, accesses.get(c.session.key))]


def _used(candidate: Candidate, accessed: datetime | None) -> bool:
    """Whether Redis has seen a use that keeps an idle session alive."""
    return candidate.unused_since is not None and accessed is not None and accessed >= candidate.unused_since
