"""R2.8, R3.5: makes Redis agree with the database, which decides where there is one."""

from __future__ import annotations

from collections.abc import Iterable

from job.steps.context import RunContext
from job.steps.sync.missing_keys import MissingKeys
from job.steps.sync.missing_ttls import add_ttls
from job.steps.sync.orphaned_keys import OrphanedKeys
from job.steps.sync.stale_entries import StaleEntries
from stores.redis.key_checksums import KeyChecksums
from stores.redis.store import KeyPage, RedisStore
from stores.waiting.background import Prefetch, with_lookups

# Pages of keys that may be in memory, to be looked at.
_KEY_PAGES_AHEAD = 4


def synchronise(context: RunContext) -> None:
    """Makes Redis agree with the database, where the policy has a Redis.

    Session keys without a row are deleted, and so are index entries and access logs of sessions that are gone; session
    keys without a TTL get one; live rows without a session key are reported or deleted. What looks wrong is checked
    again after ``sync.graceSeconds``.

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
    sums = KeyChecksums(context.tally.active)
    missing, orphaned, stale = MissingKeys(context, redis), OrphanedKeys(context, redis), StaleEntries(context, redis)
    _compare(context, redis, sums, missing, stale)
    if sums.differ:
        orphaned.delete(sums)
        if orphaned.deleted:
            stale.check_entries_of(orphaned.deleted)
    stale.finish()
    missing.finish()
    counts = context.tally.redis
    context.log.info(
        "redis sync finished",
        sessions=counts.sessions,
        orphaned=counts.orphaned,
        missing=counts.missing,
        ttlAdded=counts.ttl_added,
        indexEntriesRemoved=counts.index_entries_removed,
    )
    context.progress.finish(f"{counts.sessions:,} keys, {counts.orphaned:,} orphaned, {counts.missing:,} missing")


def tidy(context: RunContext, redis: RedisStore) -> None:
    """Adds missing TTLs, and deletes what is left of sessions that are gone, in a Redis without a database.

    Raises:
        RedisUnavailableError: Redis cannot be reached.
        LockLostError: the exclusive lock was lost.
        StopRequestedError: the run has to stop.
    """
    tally = context.tally.redis
    context.progress.start("Redis")
    for states in redis.key_state_pages():
        context.clock.checkpoint()
        tally.sessions += len(states.sessions)
        add_ttls(context, redis, sorted(states.without_ttl))
        context.progress.advance(len(states.sessions))
    stale = StaleEntries(context, redis)
    stale.check_all()
    stale.finish()
    context.log.info(
        "redis cleanup finished",
        sessions=tally.sessions,
        ttlAdded=tally.ttl_added,
        indexEntriesRemoved=tally.index_entries_removed,
    )
    context.progress.finish(f"{tally.sessions} keys, {tally.ttl_added} got a TTL")


def _compare(
    context: RunContext, redis: RedisStore, sums: KeyChecksums, missing: MissingKeys, stale: StaleEntries
) -> None:
    """Reads live rows and keys at the same time: while the run waits for one store, the other is at work.

    What has a live row is found in the order of the ids, which costs a database least; a row asks for its key, not the
    key for its row. Where the keys that the rows found are the keys there are, that is all. Keys without a TTL get one.
    """

    def check(pages: Iterable[KeyPage]) -> None:
        for page in pages:
            sums.subtract(page.session_keys)
            stale.check(page)
            context.tally.redis.sessions += len(page.session_keys)
            context.progress.advance(len(page.session_keys))
            context.clock.checkpoint()

    context.clock.checkpoint()
    with Prefetch(redis.key_pages(), _KEY_PAGES_AHEAD) as keys:
        for ids, presence in with_lookups(
            context.sessions.live_id_pages(), lambda page: redis.key_presence(map(str, page))
        ):
            sums.add(presence.keys)
            add_ttls(context, redis, sorted(presence.without_ttl))
            missing.check(ids, presence.missing)
            context.progress.advance(len(ids))
            context.clock.checkpoint()
            check(keys.ready())
        check(keys)
