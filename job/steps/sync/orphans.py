"""R3.5: session keys without a row."""

from __future__ import annotations

from collections.abc import Sequence

from job.steps.context import RunContext
from job.steps.sync.second_look import SecondLook
from job.steps.sync.sync_doubts import check_share, is_young
from job.steps.sync.ttls import add_ttls
from stores.model.sessions import Cause, Session
from stores.redis.key_marks import KeyMarks
from stores.redis.key_sums import KeySums
from stores.redis.keys import encoded
from stores.redis.store import RedisStore
from stores.waiting.background import prefetched


def settle_orphans(context: RunContext, redis: RedisStore, sums: KeySums) -> KeyMarks:
    """Session keys without a row go; keys without a TTL get one. All keys are counted anew, without what is no session.

    A key that SCAN shows on two pages is counted twice as seen, which makes the orphans' share look a little smaller
    than it is; a TTL is added, a key deleted, and (while it is held) an orphan counted, only once.

    Args:
        context: of the run.
        redis: where the keys are.
        sums: which keys may differ from the live rows: only for them the database is asked.

    Returns:
        The ids of those that went, as index entries spell them: they may be in the indexes of others than their users.
    """
    grace = context.spec.sync.grace_seconds
    tally = context.tally.redis
    seen = 0
    gone = KeyMarks()

    def judge(orphans: int) -> None:
        # safety.maxDeletions is not asked: it limits how many *sessions* go, and without its row an orphan is none.
        check_share(
            context,
            orphans,
            seen,
            "session keys in Redis have no row in the database",
            "is this the right database, and does it hold all sessions?",
        )

    def settle(ids: Sequence[str]) -> None:
        tally.orphaned += len(ids)
        if not context.dry_run:
            _remove_orphans(context, redis, ids)
            gone.note(map(encoded, ids))

    orphans = SecondLook[str](
        context.clock,
        grace,
        judge=judge,
        confirm=lambda ids: _still_orphaned(context, redis, ids),
        settle=settle,
    )
    for besides, states in prefetched(redis.doubtful_pages(sums)):
        seen += besides + len(states.sessions)
        with_row = context.database.existing(states.sessions) if states.sessions else set()
        add_ttls(context, redis, sorted(states.without_ttl & with_row))
        if suspects := states.sessions - with_row:
            ripe = redis.idle_at_least(suspects, grace)
            orphans.hold(ripe, ripe=True)
            orphans.hold(suspects - ripe)
        context.clock.checkpoint()
    tally.sessions = seen
    orphans.flush()
    return gone


def _still_orphaned(context: RunContext, redis: RedisStore, ids: Sequence[str]) -> list[str]:
    there = redis.inspect(ids).sessions
    contents = redis.contents(there)
    now = redis.server_time()
    grace = context.spec.sync.grace_seconds
    old = [
        i
        for i in ids
        if i in there
        and not (i in contents and is_young(now, grace, contents[i].created_at, contents[i].last_accessed_at))
    ]
    # The database is asked last, so that the least time passes between its word and the deed.
    with_row = context.database.existing(old) if old else set()
    return [i for i in old if i not in with_row]


def _remove_orphans(context: RunContext, redis: RedisStore, ids: Sequence[str]) -> None:
    orphans = [Session(id=i) for i in ids]
    removed = redis.remove(orphans)
    if context.audit:
        context.audit.deleted(orphans, Cause.DESYNCED.value)
    context.tally.redis.deleted += removed.session_keys
    context.tally.redis.index_entries_removed += removed.index_entries
