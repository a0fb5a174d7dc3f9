"""R2.8, R3.5: make Redis and the database agree. The database decides, where there is one; Redis follows."""

from __future__ import annotations

from collections.abc import Iterable

from job.steps.context import RunContext
from job.steps.sync.missing_keys import MissingKeys
from job.steps.sync.orphans import settle_orphans
from job.steps.sync.residue import Residue
from job.steps.sync.ttls import add_ttls
from stores.redis.key_sums import KeySums
from stores.redis.store import KeyPage, RedisStore
from stores.waiting.background import Prefetch, with_lookups

# Pages of keys that may be in memory, to be looked at.
_KEY_PAGES_AHEAD = 4


def synchronise(context: RunContext) -> None:
    """Makes Redis agree with the database, where the policy has a Redis.

    Session keys without a row go, and so do index entries that point nowhere and access logs of nobody; session keys
    without a TTL get one; live rows without a session key are reported or deleted. What looks wrong is looked at again
    after the grace.

    It may stop, or fail, anywhere: each change is right by itself, and the next run finds what is left.

    Raises:
        SafetyLimitError: more would go than the policy's safety limits allow.
        RedisUnavailableError, DatabaseUnavailableError: a store cannot be reached.
        StopRequestedError: the run has to stop.
    """
    redis = context.redis
    if redis is None:
        return
    context.progress.start("Redis sync")
    sums = KeySums(context.tally.active)
    missing, residue = MissingKeys(context, redis), Residue(context, redis)
    _compare(context, redis, sums, missing, residue)
    if sums.differ and (gone := settle_orphans(context, redis, sums)):
        residue.look_for(gone)
    residue.settle()
    missing.settle()
    counts = context.tally.redis
    context.log.info(
        "sync",
        sessions=counts.sessions,
        orphaned=counts.orphaned,
        missing=counts.missing,
        ttlAdded=counts.ttl_added,
        indexEntriesRemoved=counts.index_entries_removed,
    )
    context.progress.finish(f"{counts.sessions:,} keys, {counts.orphaned:,} orphaned, {counts.missing:,} missing")


def tidy(context: RunContext, redis: RedisStore) -> None:
    """The same where no database stands behind Redis: then nothing is orphaned, and no row is missing.

    Session keys without a TTL get one; index entries that point nowhere and access logs of nobody go.

    Raises:
        RedisUnavailableError: Redis cannot be reached.
        LockLostError: the exclusive lock was lost.
        StopRequestedError: the run has to stop.
    """
    tally = context.tally.redis
    context.progress.start("Redis")
    for states in redis.state_pages():
        context.clock.checkpoint()
        tally.sessions += len(states.sessions)
        add_ttls(context, redis, sorted(states.without_ttl))
        context.progress.advance(len(states.sessions))
    residue = Residue(context, redis)
    residue.walk()
    residue.settle()
    context.log.info(
        "tidied", sessions=tally.sessions, ttlAdded=tally.ttl_added, indexEntriesRemoved=tally.index_entries_removed
    )
    context.progress.finish(f"{tally.sessions} keys, {tally.ttl_added} got a TTL")


def _compare(context: RunContext, redis: RedisStore, sums: KeySums, missing: MissingKeys, residue: Residue) -> None:
    """Walks through live rows and keys at the same time: while one store is waited for, the other is at work.

    What has a live row is found in the order of the ids, which costs a database least; a row asks for its key, not the
    key for its row. Where the keys that the rows found are the keys there are, that is all. Keys without a TTL get one.
    """

    def look(pages: Iterable[KeyPage]) -> None:
        for page in pages:
            sums.subtract(page.session_keys)
            residue.look(page)
            context.tally.redis.sessions += len(page.session_keys)
            context.progress.advance(len(page.session_keys))
            context.clock.checkpoint()

    context.clock.checkpoint()
    with Prefetch(redis.key_pages(), _KEY_PAGES_AHEAD) as keys:
        for ids, standing in with_lookups(
            context.database.live_id_pages(), lambda page: redis.standing(map(str, page))
        ):
            sums.add(standing.keys)
            add_ttls(context, redis, sorted(standing.without_ttl))
            missing.look(ids, standing.gone)
            context.progress.advance(len(ids))
            context.clock.checkpoint()
            look(keys.ready())
        look(keys)
