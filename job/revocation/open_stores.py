"""Opens the stores of a policy for a command or a SessionRevocation."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from job.revocation.lookup import SessionLookup
from job.revocation.revoker import SessionRevoker
from job.steps.initialise import RunStores, Urls, initialise
from policy.manifest import SessionPolicy
from policy.names import DATABASE_URL_ENV, REDIS_URL_ENV
from stores.model.errors import ConfigurationError
from stores.redis.connection.connect import connect
from stores.redis.redis_only.lock import RedisLock
from stores.redis.redis_only.opening import open_redis
from stores.redis.store import RedisStore
from stores.waiting.clock import RunClock


@dataclass(frozen=True, slots=True)
class OpenStores:
    """The stores of a policy, checked, and what finds and revokes sessions in them.

    Attributes:
        policy: the policy.
        run_stores: as for a run; None without a database.
        redis: Redis, if the policy has one.
        lookup: finds sessions.
        revoker: deletes them.
        clock: of the command; ends it like a run, on a signal or when it takes too long.
    """

    policy: SessionPolicy
    run_stores: RunStores | None
    redis: RedisStore | None
    lookup: SessionLookup
    revoker: SessionRevoker
    clock: RunClock


def with_short_retries(policy: SessionPolicy) -> SessionPolicy:
    """The policy with few retries, soon after each other, for somebody who waits at a terminal."""
    spec = policy.spec
    soon: dict[str, Any] = {"attempts": min(1, spec.retries.database.attempts), "delay_seconds": 1}
    retries = spec.retries.model_copy(
        update={
            "database": spec.retries.database.model_copy(update=soon),
            "redis": spec.retries.redis.model_copy(update=soon),
            "deletion": spec.retries.deletion.model_copy(update=soon),
        }
    )
    return policy.model_copy(update={"spec": spec.model_copy(update={"retries": retries})})


@contextmanager
def open_stores(
    policy: SessionPolicy, database_url: str | None, redis_url: str | None, log: Any, *, exclusive: bool
) -> Iterator[OpenStores]:
    """The stores of a policy, checked as for a run, for somebody who waits at a terminal.

    Args:
        policy: the policy.
        database_url: where its database is.
        redis_url: where its Redis is.
        log: for warnings and retries.
        exclusive: take the lock that runs take.

    Raises:
        RunError: as a run would end.
        LockHeldError: a run, or another such command, is at work.
    """
    policy = with_short_retries(policy)
    clock = RunClock(policy.spec.job.timeout_seconds)
    previous = signal.signal(signal.SIGTERM, lambda *_: clock.request_stop())
    try:
        with open_for_job(policy, Urls(database_url, redis_url), clock, log, exclusive=exclusive) as stores:
            yield stores
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def open_for_job(
    policy: SessionPolicy, urls: Urls, clock: RunClock, log: Any, *, exclusive: bool
) -> Iterator[OpenStores]:
    """As :func:`open_stores`, with the policy's own retries and the caller's clock."""
    if policy.spec.stores.database:
        with _open_database(policy, urls, clock, log, exclusive=exclusive) as stores:
            yield stores
    else:
        with _open_redis_only(policy, urls, clock, log, exclusive=exclusive) as stores:
            yield stores


@contextmanager
def _open_database(
    policy: SessionPolicy, urls: Urls, clock: RunClock, log: Any, *, exclusive: bool
) -> Iterator[OpenStores]:
    if not urls.database:
        raise ConfigurationError(f"no database URL: set {DATABASE_URL_ENV} or pass --database-url")
    with closing(initialise(policy.spec, urls, clock, log, exclusive=exclusive)) as opened:
        yield _stores(policy, clock, opened, opened.redis)


@contextmanager
def _open_redis_only(
    policy: SessionPolicy, urls: Urls, clock: RunClock, log: Any, *, exclusive: bool
) -> Iterator[OpenStores]:
    store = policy.spec.stores.redis
    assert store is not None  # the spec's own rule: there is a database, a Redis, or both
    if not urls.redis:
        raise ConfigurationError(f"no Redis URL: set {REDIS_URL_ENV} or pass --redis-url")
    if exclusive:
        with closing(open_redis(policy.spec, urls.redis, clock, log)) as opened:
            yield _stores(policy, clock, None, opened.store, opened.lock)
        return
    with closing(RedisStore(connect(urls.redis, store), store, policy.spec.retries.redis, clock, log)) as redis:
        yield _stores(policy, clock, None, redis)


def _stores(
    policy: SessionPolicy,
    clock: RunClock,
    run_stores: RunStores | None,
    redis: RedisStore | None,
    lock: RedisLock | None = None,
) -> OpenStores:
    database = run_stores.database if run_stores else None
    lookup = SessionLookup(database, redis, clock)
    return OpenStores(policy, run_stores, redis, lookup, SessionRevoker(lookup, database, redis, clock, lock), clock)
