"""Opening a Redis that has no database behind it: what a run checks before it begins (R2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from policy.lifetime import resolve_lifetime
from policy.spec import SessionPolicySpec
from stores.model.cutoffs import Cutoffs, cutoffs
from stores.model.errors import ClockSkewError
from stores.model.session_log import SessionLog
from stores.redis.connection.connect import connect
from stores.redis.redis_only.lock import RedisLock
from stores.redis.redis_only.sessions import RedisOnlySessions
from stores.redis.store import RedisStore
from stores.waiting.clock import RunClock


@dataclass(frozen=True, slots=True)
class OpenedRedis:
    """A Redis, checked and locked.

    Attributes:
        sessions: its sessions, as the steps want them.
        store: the same, as the synchronisation wants it.
        lock: on them.
        cutoffs: before when a session has expired, by the clock of Redis.
    """

    sessions: RedisOnlySessions
    store: RedisStore
    lock: RedisLock
    cutoffs: Cutoffs

    def close(self) -> None:
        """Gives the lock back and closes the connections."""
        self.lock.close()
        self.store.close()


def open_redis(
    spec: SessionPolicySpec, url: str, clock: RunClock, log: Any, audit: SessionLog | None = None
) -> OpenedRedis:
    """Opens the Redis of a policy that has no database.

    Raises:
        ConfigurationError: the URL or the key templates cannot be used, or Redis refuses the login.
        RedisUnavailableError: Redis cannot be reached.
        ClockSkewError: clocks differ by more than the policy allows.
        LockHeldError: another run is at work on these sessions.
    """
    settings = spec.stores.redis
    assert settings is not None  # the spec's own rule: there is a database, a Redis, or both
    store = RedisStore(connect(url, settings), settings, spec.retries.redis, clock, log)
    lock = RedisLock(connect(url, settings), spec.retries.redis, clock, log, template=settings.keys.session)
    try:
        now = _checked_time(store, spec.safety.clock_skew_seconds)
        lock.acquire()
    except BaseException:
        lock.close()
        store.close()
        raise
    limits = cutoffs(now, resolve_lifetime(spec), spec.safety.clock_skew_seconds)
    sessions = RedisOnlySessions(store, lock, limits, spec.cleanup_batch_size, spec.sync.grace_seconds, audit)
    return OpenedRedis(sessions, store, lock, limits)


def _checked_time(store: RedisStore, limit_seconds: int) -> datetime:
    """The time by the clock that is furthest behind, if no two clocks are too far apart."""
    before = datetime.now(UTC)
    theirs = store.server_times()
    after = datetime.now(UTC)
    # The answer may have taken long, with attempts in between: only what lies outside of that time is a difference.
    ahead = max(0.0, (max(theirs) - after).total_seconds())
    behind = max(0.0, (before - min(theirs)).total_seconds())
    apart = ahead + behind
    if apart > limit_seconds:
        raise ClockSkewError(
            f"the clocks of the container and of the Redis servers are {apart:.1f} s apart, over "
            f"safety.clockSkewSeconds ({limit_seconds}): correct the clocks; nothing was deleted"
        )
    return min(theirs)
