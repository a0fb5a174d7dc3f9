"""R2.2: delete the sessions past their timeout, in batches, from the database and then from Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from job.steps.context import RunContext
from job.steps.removal import count, delete_from_redis
from stores.model.sessions import Candidate, Cause, RangeDeletion, Session
from stores.waiting.background import BackgroundCall
from stores.waiting.pacing import rest_seconds

if TYPE_CHECKING:
    from stores.model.key_range import KeyRange


@dataclass(frozen=True, slots=True)
class Batch:
    """Some sessions that the database calls expired.

    Attributes:
        found: how many.
        due: those of them that Redis has not seen in use since.
    """

    found: int
    due: list[Session]


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
        StopRequestedError: the run has to stop; what was not reached stays in ``tally.remaining``.
    """
    tally = context.tally
    context.progress.start("Expired sessions", found)
    if found and not context.dry_run and (choice := context.database.strategy()):
        context.log.info("strategy", chosen=choice.strategy.value, because=choice.because, **choice.figures())
    kept = 0
    # Nobody else is to be asked, so finding and deleting may be one statement.
    if context.dry_run or context.redis is not None or context.budget.limited:
        kept = _page_by_page(context, found, key_ranges)
    else:
        _sweep(context, found, key_ranges)
    context.progress.finish(f"{tally.expired:,} found, {tally.deleted:,} deleted")
    context.log.info("expired", found=tally.expired, deleted=tally.deleted, failed=tally.failed, keptByRedis=kept)
    return kept


def _sweep(context: RunContext, found: int, key_ranges: Sequence[KeyRange] | None) -> None:
    tally = context.tally
    behind, reached = tally.remaining - tally.expired, 0
    tally.expired = found
    sweep = context.database.bulk_delete_expired(key_ranges)
    # A batch is counted and logged while the server is at work on the next one.
    with BackgroundCall() as background:
        while True:
            context.clock.checkpoint()
            begun = time.monotonic()
            swept = next(sweep, None)
            if swept is None:
                break
            gone = len(swept.deleted) + swept.failed
            reached += gone
            tally.remaining = behind + max(0, found - reached)
            background.start(partial(_settle, context, swept))
            context.progress.advance(gone)
            _rest(context, time.monotonic() - begun)
    tally.remaining = behind  # what was not met is in use, or not due any more


def _settle(context: RunContext, swept: RangeDeletion) -> None:
    if context.audit:
        context.audit.deleted(swept.unlogged, Cause.EXPIRED.value)
    count(context, swept)


def _page_by_page(context: RunContext, found: int, key_ranges: Sequence[KeyRange] | None) -> int:
    tally = context.tally
    behind, unseen, kept = tally.remaining - (0 if context.dry_run else tally.expired), found, 0
    batches = expired_batches(context, key_ranges)
    # A batch goes from Redis while the database is at work on the next one.
    with BackgroundCall() as background:
        while True:
            context.clock.checkpoint()
            begun = time.monotonic()
            batch = next(batches, None)
            if batch is None:
                break
            unseen -= batch.found
            kept += batch.found - len(batch.due)
            tally.expired = max(0, found - kept)
            if not context.dry_run:
                reached = context.budget.take(len(batch.due))
                result = context.database.delete_expired(batch.due[:reached])
                count(context, result)
                behind += len(batch.due) - reached
                tally.remaining = behind + max(0, unseen)
                # Last, for it waits for the batch before: if that hangs, what was counted until then is true.
                background.start(partial(delete_from_redis, context, result))
            context.progress.advance(batch.found)
            if not context.dry_run:
                _rest(context, time.monotonic() - begun)
    tally.remaining = behind
    return kept


def _rest(context: RunContext, busy_seconds: float) -> None:
    if seconds := rest_seconds(busy_seconds, context.spec.cleanup.throttle_percent):
        context.clock.wait(seconds)


def expired_batches(context: RunContext, key_ranges: Sequence[KeyRange] | None = None) -> Iterator[Batch]:
    """The expired sessions, a batch at a time.

    Only idleness can be disproved by Redis: a session past its absolute timeout or the application's own expiry has
    ended however much it is used.
    """
    for page in context.database.expired_pages(key_ranges):
        yield Batch(len(page), _due(context, page))


def _due(context: RunContext, page: Sequence[Candidate]) -> list[Session]:
    idle = [c.session.key for c in page if c.unused_since] if context.redis else []
    accesses = context.redis.last_accesses(idle) if context.redis and idle else {}
    return [c.session for c in page if not _used(c, accesses.get(c.session.key))]


def _used(candidate: Candidate, accessed: datetime | None) -> bool:
    """Whether Redis has seen a use that keeps an idle session alive."""
    return candidate.unused_since is not None and accessed is not None and accessed >= candidate.unused_since
