"""R2.8, R3.5: make Redis and the database agree. The database decides, where there is one; Redis follows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta

from job.background import ahead, alongside
from job.context import RunContext
from job.errors import SafetyLimitError
from job.redisstore.batches import batches
from job.redisstore.second_look import SecondLook
from job.redisstore.store import IndexEntry, RedisStore
from job.safety import exceeds_share
from job.sessions import Cause, Session
from policy.profiles import resolve_lifetime
from policy.spec import OnMissingRedisSession

_BATCH = 1000
_MIN_TTL_SECONDS = 60.0
# A time further ahead than any mistake in a zone is not a time: it must not protect a session for years.
_FAR_FUTURE = timedelta(days=1)


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
    _sync_session_keys(context, redis)
    _sync_indexes(context, redis)
    _sync_access_logs(context, redis)
    _sync_rows(context, redis)
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
        _add_ttls(context, redis, sorted(states.without_ttl))
        context.progress.advance(len(states.sessions))
    _sync_indexes(context, redis)
    _sync_access_logs(context, redis)
    context.log.info(
        "tidied", sessions=tally.sessions, ttlAdded=tally.ttl_added, indexEntriesRemoved=tally.index_entries_removed
    )
    context.progress.finish(f"{tally.sessions} keys, {tally.ttl_added} got a TTL")


# --- session keys ----------------------------------------------------------------------------------------------------


def _sync_session_keys(context: RunContext, redis: RedisStore) -> None:
    """Orphaned keys go; keys without a TTL get one.

    A key that SCAN shows on two pages is counted twice as seen, which makes the orphans' share look a little smaller
    than it is; a TTL is added, a key deleted, and (while it is held) an orphan counted, only once.
    """
    grace = context.spec.sync.grace_seconds
    tally = context.tally.redis

    def judge(orphans: int) -> None:
        # safety.maxDeletions is not asked: it limits how many *sessions* go, and without its row an orphan is none.
        _check_share(
            context,
            orphans,
            tally.sessions,
            "session keys in Redis have no row in the database",
            "is this the right database, and does it hold all sessions?",
        )

    orphans = SecondLook[str](
        context.clock,
        grace,
        judge=judge,
        confirm=lambda ids: _still_orphaned(context, redis, ids),
        settle=lambda ids: _remove_orphans(context, redis, ids),
    )
    context.clock.checkpoint()
    for states in ahead(redis.state_pages()):
        tally.sessions += len(states.sessions)
        with_row = context.database.existing(states.sessions) if states.sessions else set()
        _add_ttls(context, redis, sorted(states.without_ttl & with_row))
        if suspects := states.sessions - with_row:
            ripe = redis.idle_at_least(suspects, grace)
            orphans.hold(ripe, ripe=True)
            orphans.hold(suspects - ripe)
        context.progress.advance(len(states.sessions))
        context.clock.checkpoint()
    orphans.flush()


def _add_ttls(context: RunContext, redis: RedisStore, ids: Sequence[str]) -> None:
    if not ids or context.dry_run:
        return
    absolute = resolve_lifetime(context.spec).absolute
    if absolute is None:
        ttls: dict[str, float] = dict.fromkeys(ids, context.spec.sync.default_ttl_seconds)
    else:
        now, contents = redis.server_time(), redis.contents(ids)
        ttls = {i: remaining_seconds(contents[i].created_at if i in contents else None, absolute, now) for i in ids}
    context.tally.redis.ttl_added += redis.add_ttls(ttls)


def remaining_seconds(created_at: datetime | None, absolute: int, now: datetime) -> float:
    """How long a session may still live, in seconds: never less than a minute, never more than its absolute timeout.

    Args:
        created_at: when it began; None if not known, then it counts as new.
        absolute: its absolute timeout in seconds.
        now: the time.
    """
    age = (now - created_at).total_seconds() if created_at else 0.0
    return max(_MIN_TTL_SECONDS, min(absolute - age, absolute))


def _still_orphaned(context: RunContext, redis: RedisStore, ids: Sequence[str]) -> list[str]:
    there = redis.inspect(ids).sessions
    contents = redis.contents(there)
    now = redis.server_time()
    grace = context.spec.sync.grace_seconds
    old = [
        i
        for i in ids
        if i in there
        and not (i in contents and _is_young(now, grace, contents[i].created_at, contents[i].last_accessed_at))
    ]
    # The database is asked last, so that the least time passes between its word and the deed.
    with_row = context.database.existing(old) if old else set()
    return [i for i in old if i not in with_row]


def _remove_orphans(context: RunContext, redis: RedisStore, ids: Sequence[str]) -> None:
    context.tally.redis.orphaned += len(ids)
    if context.dry_run:
        return
    orphans = [Session(id=i) for i in ids]
    removed = redis.remove(orphans)
    if context.audit:
        context.audit.deleted(orphans, Cause.DESYNCED.value)
    context.tally.redis.deleted += removed.session_keys
    context.tally.redis.index_entries_removed += removed.index_entries


# --- user indexes ----------------------------------------------------------------------------------------------------


def _sync_indexes(context: RunContext, redis: RedisStore) -> None:
    """Entries go whose session has neither key nor row."""
    stale = SecondLook[IndexEntry](
        context.clock,
        context.spec.sync.grace_seconds,
        judge=lambda _: None,  # a stale entry is no session, and nobody is logged out with it
        confirm=lambda entries: _pointing_nowhere(context, redis, entries),
        settle=lambda entries: _remove_entries(context, redis, entries),
    )
    wrong_type = 0
    context.clock.checkpoint()
    for page in ahead(redis.lone_index_pages()):
        for entries in batches(page.entries, _BATCH):
            rows = context.database.existing({entry.session_id for entry in entries})
            stale.hold(entry for entry in entries if entry.session_id not in rows)
        wrong_type += page.wrong_type
        context.clock.checkpoint()
    stale.flush()
    if wrong_type:
        context.log.warning(
            "sync skipped keys",
            keys=wrong_type,
            because="they are named as stores.redis.keys.userIndex says, but are no sets",
        )


def _pointing_nowhere(context: RunContext, redis: RedisStore, entries: Sequence[IndexEntry]) -> list[IndexEntry]:
    absent = _unknown(context, redis, {entry.session_id for entry in entries})
    return [entry for entry in entries if entry.session_id in absent]


def _remove_entries(context: RunContext, redis: RedisStore, entries: Sequence[IndexEntry]) -> None:
    if not context.dry_run:
        context.tally.redis.index_entries_removed += redis.remove_index_entries(entries)


# --- access logs -----------------------------------------------------------------------------------------------------


def _sync_access_logs(context: RunContext, redis: RedisStore) -> None:
    """Logs go whose session has neither key nor row: its key ended by its TTL, or a run died between the two."""
    removed = 0

    def settle(ids: Sequence[str]) -> None:
        nonlocal removed
        if not context.dry_run:
            removed += redis.remove_access_logs(ids)

    stale = SecondLook[str](
        context.clock,
        context.spec.sync.grace_seconds,
        judge=lambda _: None,  # nobody is logged out with a log
        confirm=lambda ids: sorted(_unknown(context, redis, ids)),
        settle=settle,
    )
    for page in ahead(redis.lone_access_log_pages()):
        context.clock.checkpoint()
        for ids in batches(page, _BATCH):
            stale.hold(set(ids) - context.database.existing(ids))
    stale.flush()
    if removed:
        context.log.info("access logs removed", logs=removed)


def _unknown(context: RunContext, redis: RedisStore, ids: Collection[str]) -> set[str]:
    """Those of the sessions that have neither key nor row."""
    gone = redis.gone(ids)
    return gone - context.database.existing(gone) if gone else gone


# --- rows ------------------------------------------------------------------------------------------------------------


def _sync_rows(context: RunContext, redis: RedisStore) -> None:
    """Live rows without a session key are counted, or deleted, as the policy says.

    A row that is known to be older than the grace is counted without a wait, for nothing hangs on it; it is deleted
    only after one, for an application may take a session's key away and write it anew.
    """
    delete = context.spec.sync.on_missing_redis_session is OnMissingRedisSession.DELETE
    grace = context.spec.sync.grace_seconds
    seen = 0

    def judge(missing: int) -> None:
        if delete:
            _check_share(
                context,
                missing,
                seen,
                "live rows in the database have no session key in Redis",
                "Redis looks empty, or is the wrong one",
            )

    missing = SecondLook[Session](
        context.clock,
        grace,
        judge=judge,
        confirm=lambda sessions: _still_missing(context, redis, sessions),
        settle=_deletion(context, redis) if delete else lambda sessions: _count_missing(context, sessions),
    )
    context.clock.checkpoint()
    for page, gone in alongside(context.database.live_id_pages(), lambda page: redis.gone(map(str, page))):
        seen += len(page)
        if gone:
            sessions = context.database.live_sessions([i for i in page if str(i) in gone])
            now = redis.server_time()
            for session in sessions:
                times = (session.created_at, session.last_accessed_at)
                if not _is_young(now, grace, *times):
                    missing.hold([session], ripe=not delete and any(times))
        context.progress.advance(len(page))
        context.clock.checkpoint()
    missing.flush()


def _still_missing(context: RunContext, redis: RedisStore, sessions: Sequence[Session]) -> list[Session]:
    gone = redis.gone(session.key for session in sessions)
    with_row = context.database.existing(gone) if gone else set()
    return [session for session in sessions if session.key in with_row]


def _count_missing(context: RunContext, sessions: Sequence[Session]) -> None:
    context.tally.redis.missing += len(sessions)


def _deletion(context: RunContext, redis: RedisStore) -> Callable[[Sequence[Session]], None]:
    def settle(sessions: Sequence[Session]) -> None:
        _count_missing(context, sessions)
        if context.dry_run:
            return
        due = sessions[: context.budget.take(len(sessions))]
        context.tally.remaining += len(sessions) - len(due)
        if not due:
            return
        result = context.database.delete_live(due)
        context.tally.deleted += len(result.deleted)
        context.tally.failed += result.failed
        context.tally.active -= len(result.deleted)
        context.budget.spend(len(result.deleted))
        # Their keys are gone, but access logs and index entries may be left.
        removed = redis.remove(result.deleted)
        context.tally.redis.deleted += removed.session_keys
        context.tally.redis.index_entries_removed += removed.index_entries

    return settle


# --- both ------------------------------------------------------------------------------------------------------------


def _is_young(now: datetime, grace_seconds: int, *moments: datetime | None) -> bool:
    """Whether any of these moments lies less than the grace ago: whatever it belongs to may not be finished yet."""
    earliest, latest = now - timedelta(seconds=grace_seconds), now + _FAR_FUTURE
    return any(moment is not None and earliest < moment <= latest for moment in moments)


def _check_share(context: RunContext, found: int, total: int, what: str, remedy: str) -> None:
    safety = context.spec.safety
    if not exceeds_share(found, total, safety):
        return
    numbers = f"{found} of {total} {what}, over safety.maxDeletePercent ({safety.max_delete_percent} %)"
    if context.dry_run:
        # A dry run goes on: it is there to show what a run would meet.
        context.log.warning("safety limit", found=found, of=total, because=f"{numbers}: a run would stop here")
        return
    raise SafetyLimitError(
        f"{numbers}: {remedy} None of them was deleted. If this is right, raise safety.maxDeletePercent for one run"
    )
