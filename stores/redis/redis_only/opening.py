"""Opens the Redis of a policy without a database: connects, checks clocks, takes the lock (R2.1)."""

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
    """A Redis that is checked and locked.

    Attributes:
        sessions: the sessions, for the steps of a run.
        store: the session keys.
        lock: the exclusive lock, acquired.
        cutoffs: the times before which a session has expired, by the clock of Redis.
    """

    sessions: RedisOnlySessions
    store: RedisStore
    lock: RedisLock
    cutoffs: Cutoffs

    def close(self) -> None:
        """Releases the lock and closes the connections."""
        self.lock.close()
        self.store.close()


def open_redis(
    spec: SessionPolicySpec, url: str, clock: RunClock, log: Any, audit: SessionLog | None = None
) -> OpenedRedis:
    """Opens the Redis of a policy without a database.

    Raises:
        ConfigurationError: the URL or the key templates are invalid, or Redis refuses the login.
        RedisUnavailableError: Redis cannot be reached.
        ClockSkewError: clocks differ by more than safety.clockSkewSeconds.
        LockHeldError: another run holds the lock on these sessions.
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
    """The time of the slowest Redis clock, if all clocks are close enough."""
    before = datetime.now(UTC)
    theirs = store.server_times()
    after = datetime.now(UTC)
    # The replies may have taken long, with retries: only a time outside of that interval is a clock difference.
    ahead = max(0.0, (max(theirs) - after).total_seconds())
    behind = max(0.0, (before - min(theirs)).total_seconds())
    apart = ahead + behind
    if apart > limit_seconds:
        raise ClockSkewError(
            f"the clocks of the container and of the Redis servers are {apart:.1f} s apart, over "
            f"safety.clockSkewSeconds ({limit_seconds}); nothing was deleted. Synchronize the clocks"
        )
    return min(theirs)
