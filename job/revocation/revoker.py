"""Deletes sessions from all stores of a policy (R3.6)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from job.revocation.lookup import SessionLookup
from stores.model.batches import batches
from stores.model.sessions import Cause, Session
from stores.redis.redis_only.lock import RedisLock
from stores.redis.store import RedisStore
from stores.sql.store import SessionDatabase
from stores.waiting.clock import RunClock

_BATCH = 500
# A row that an application has locked is skipped by the statement that deletes, and tried again.
_ATTEMPTS = 10
_PAUSE_SECONDS = 0.3


@dataclass(slots=True)
class RevocationResult:
    """What became of a revocation.

    Attributes:
        sessions: deleted from all stores.
        left: could not be deleted, because an application has locked their rows.
    """

    sessions: list[Session] = field(default_factory=list)
    left: list[Session] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RevokedBatch:
    """Some sessions that were revoked just now.

    Attributes:
        sessions: deleted from all stores.
        rows: how many rows of the database were deleted.
        keys: how many session keys of Redis were deleted.
    """

    sessions: Sequence[Session]
    rows: int
    keys: int


def _ignore(_batch: RevokedBatch) -> None:
    """For callers who want the result only."""


class SessionRevoker:
    """Deletes sessions from all stores of a policy, whatever their age.

    All methods raise what the stores raise: DatabaseUnavailableError, RedisUnavailableError, ConfigurationError.

    Args:
        lookup: finds the sessions of a user.
        database: the database, if any.
        redis: Redis, if any.
        clock: for pauses.
        lock: on the sessions of a Redis without a database, if it was taken; a database keeps its own.
    """

    def __init__(
        self,
        lookup: SessionLookup,
        database: SessionDatabase | None,
        redis: RedisStore | None,
        clock: RunClock,
        lock: RedisLock | None = None,
    ) -> None:
        self._lookup = lookup
        self._database = database
        self._redis = redis
        self._clock = clock
        self._lock = lock

    def revoke_user(self, user: str, on_batch: Callable[[RevokedBatch], None] = _ignore) -> RevocationResult:
        """Deletes all sessions of a user from all stores, also those that begin meanwhile.

        Args:
            user: its id as it is stored.
            on_batch: called after each batch, so that what was deleted is known even if a later batch fails.
        """
        result = RevocationResult()
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._clock.wait(_PAUSE_SECONDS)
            found = [each.session for each in self._lookup.of_user(user)]
            if not found:
                result.left = []
                return result
            self._revoke_once(found, result, on_batch)
            if not result.left:
                return result
        return result

    def revoke(
        self, sessions: Sequence[Session], on_batch: Callable[[RevokedBatch], None] = _ignore
    ) -> RevocationResult:
        """Deletes these sessions from all stores; on_batch as in :meth:`revoke_user`."""
        result = RevocationResult(left=list(sessions))
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._clock.wait(_PAUSE_SECONDS)
            self._revoke_once(result.left, result, on_batch)
            if not result.left:
                return result
        return result

    def _revoke_once(
        self, sessions: Sequence[Session], result: RevocationResult, on_batch: Callable[[RevokedBatch], None]
    ) -> None:
        """The rows first: while a row is there, an application could write its session key anew."""
        result.left = []
        for batch in batches(sessions, _BATCH):
            self._clock.checkpoint()
            if self._lock:
                self._lock.check()
            with_row: Collection[str] = set()
            left: Collection[str] = set()
            if self._database:
                with_row = self._database.existing([s.key for s in batch])
                self._database.delete_if([s for s in batch if s.key in with_row], sa.true(), Cause.REVOKED)
                left = self._database.existing(with_row) if with_row else set()
            gone = [s for s in batch if s.key not in left]
            keys = self._redis.delete(gone).session_keys if self._redis else 0
            result.sessions += gone
            result.left += [s for s in batch if s.key in left]
            if gone:
                on_batch(RevokedBatch(gone, len(with_row) - len(left), keys))
