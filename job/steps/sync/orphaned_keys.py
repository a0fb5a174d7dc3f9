"""R3.5: session keys without a row."""

from __future__ import annotations

from collections.abc import Sequence

from job.steps.context import RunContext
from job.steps.sync.missing_ttls import add_ttls
from job.steps.sync.recheck import Recheck
from job.steps.sync.safeguards import check_share, is_young
from stores.model.sessions import Cause, Session
from stores.redis.key_bloom_filter import KeyBloomFilter
from stores.redis.key_checksums import KeyChecksums
from stores.redis.keys import encoded
from stores.redis.store import RedisStore
from stores.waiting.background import prefetched


class OrphanedKeys:
    """Deletes session keys without a row.

    ``safety.maxDeletions`` is not asked: it limits how many *sessions* are deleted, and a key without its row is none.

    Args:
        context: of the run.
        redis: where the keys are.
    """

    def __init__(self, context: RunContext, redis: RedisStore) -> None:
        self._context = context
        self._redis = redis
        self._grace = context.spec.sync.grace_seconds
        self._seen = 0
        self._held = Recheck[str](
            context.clock, self._grace, judge=self._judge, confirm=self._still_orphaned, settle=self._delete
        )
        self.deleted = KeyBloomFilter()
        """The ids of what was deleted, as index entries have them: they may be in the indexes of other users."""

    def delete(self, sums: KeyChecksums) -> None:
        """Deletes session keys without a row, and adds missing TTLs. Counts all session keys anew.

        A key that SCAN shows on two pages is counted twice as seen, which makes the orphans' share look a little
        smaller than it is; a TTL is added, a key deleted, and (while it is held) an orphan counted, only once.

        Args:
            sums: which keys may differ from the live rows: only for them the database is asked.
        """
        sessions = self._context.sessions
        for besides, states in prefetched(self._redis.possibly_different_pages(sums)):
            self._seen += besides + len(states.sessions)
            with_row = sessions.existing(states.sessions) if states.sessions else set()
            add_ttls(self._context, self._redis, sorted(states.without_ttl & with_row))
            if suspects := states.sessions - with_row:
                ripe = self._redis.idle_at_least(suspects, self._grace)
                self._held.add(ripe, grace_passed=True)
                self._held.add(suspects - ripe)
            self._context.clock.checkpoint()
        self._context.tally.redis.sessions = self._seen
        self._held.flush()

    def _judge(self, orphans: int) -> None:
        check_share(
            self._context,
            orphans,
            self._seen,
            "session keys in Redis have no row in the database",
            "Check that the policy points at the right database, and that it holds all sessions",
        )

    def _still_orphaned(self, ids: Sequence[str]) -> list[str]:
        there = self._redis.key_states(ids).sessions
        contents = self._redis.contents(there)
        now = self._redis.server_time()
        old = [
            i
            for i in ids
            if i in there
            and not (i in contents and is_young(now, self._grace, contents[i].created_at, contents[i].last_accessed_at))
        ]
        # The database is asked last, so that the least time passes between its answer and the deletion.
        with_row = self._context.sessions.existing(old) if old else set()
        return [i for i in old if i not in with_row]

    def _delete(self, ids: Sequence[str]) -> None:
        tally = self._context.tally.redis
        tally.orphaned += len(ids)
        if self._context.dry_run:
            return
        orphans = [Session(id=i) for i in ids]
        removed = self._redis.delete(orphans)
        if self._context.audit:
            self._context.audit.deleted(orphans, Cause.DESYNCED.value)
        tally.deleted += removed.session_keys
        tally.index_entries_removed += removed.index_entries
        self.deleted.add(map(encoded, ids))
