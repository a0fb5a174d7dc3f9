"""R3.5: live rows without a session key."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from job.steps.context import RunContext
from job.steps.sync.recheck import Recheck
from job.steps.sync.safeguards import check_share, is_young
from policy.spec import OnMissingRedisSession
from stores.model.sessions import Cause, Session
from stores.redis.store import RedisStore


class MissingKeys:
    """Live rows without a session key are counted, or deleted, as the policy says.

    A row that is known to be older than the grace is counted without a wait, for nothing hangs on it; it is deleted
    only after one, for an application may take a session's key away and write it anew.

    Args:
        context: of the run.
        redis: where the keys should be.
    """

    def __init__(self, context: RunContext, redis: RedisStore) -> None:
        self._context = context
        self._redis = redis
        self._deletes = context.spec.sync.on_missing_redis_session is OnMissingRedisSession.DELETE
        self._seen = 0
        self._held = Recheck[Session](
            context.clock,
            context.spec.sync.grace_seconds,
            judge=self._judge,
            confirm=self._still_missing,
            settle=self._delete if self._deletes else self._count,
        )

    def check(self, ids: Sequence[Any], gone: Collection[str]) -> None:
        """Checks live rows, some of which have no key."""
        self._seen += len(ids)
        if not gone:
            return
        sessions = self._context.sessions.live_sessions([i for i in ids if str(i) in gone])
        now, grace = self._redis.server_time(), self._context.spec.sync.grace_seconds
        for session in sessions:
            times = (session.created_at, session.last_accessed_at)
            if not is_young(now, grace, *times):
                self._held.add([session], grace_passed=not self._deletes and any(times))

    def finish(self) -> None:
        """Counts, or deletes, the rows whose keys are still missing.

        Raises:
            SafetyLimitError: more would go than the policy allows.
        """
        self._held.flush()

    def _judge(self, missing: int) -> None:
        if self._deletes:
            check_share(
                self._context,
                missing,
                self._seen,
                "live rows in the database have no session key in Redis",
                "Check that the policy points at the right Redis, and that it has not lost its keys",
            )

    def _still_missing(self, sessions: Sequence[Session]) -> list[Session]:
        gone = self._redis.missing(session.key for session in sessions)
        with_row = self._context.sessions.existing(gone) if gone else set()
        return [session for session in sessions if session.key in with_row]

    def _count(self, sessions: Sequence[Session]) -> None:
        self._context.tally.redis.missing += len(sessions)

    def _delete(self, sessions: Sequence[Session]) -> None:
        self._count(sessions)
        if self._context.dry_run:
            return
        tally, limit = self._context.tally, self._context.deletion_limit
        due = sessions[: limit.allowed(len(sessions))]
        tally.due.settle(Cause.DESYNCED, len(sessions), kept_back=len(sessions) - len(due))
        if not due:
            return
        result = self._context.sessions.delete_live(due)
        tally.deleted += len(result.deleted)
        tally.failed += result.failed
        tally.active -= len(result.deleted)
        limit.count(len(result.deleted))
        # Their keys are gone, but access logs and index entries may be left.
        removed = self._redis.delete(result.deleted)
        tally.redis.deleted += removed.session_keys
        tally.redis.index_entries_removed += removed.index_entries
