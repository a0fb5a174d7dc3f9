"""A policy's stores, opened for a command."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from job.revocation.directory import SessionDirectory
from job.steps.initialise import Opened, Urls, initialise
from policy.manifest import SessionPolicy
from policy.names import DATABASE_URL_ENV, REDIS_URL_ENV
from stores.model.errors import ConfigurationError
from stores.redis.connection.connect import connect
from stores.redis.primary.opening import open_redis
from stores.redis.store import RedisStore
from stores.waiting.clock import RunClock


@dataclass(frozen=True, slots=True)
class OpenStores:
    """What a command works on.

    Attributes:
        policy: the policy.
        opened: as for a run; None without a database.
        redis: Redis, if the policy has one.
        directory: looks sessions up.
        clock: of the command; ends it like a run, on a signal or when it takes too long.
    """

    policy: SessionPolicy
    opened: Opened | None
    redis: RedisStore | None
    directory: SessionDirectory
    clock: RunClock


def patient_for_people(policy: SessionPolicy) -> SessionPolicy:
    """The policy with retries that somebody at a terminal waits for: few, and soon."""
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
    policy = patient_for_people(policy)
    clock = RunClock(policy.spec.job.timeout_seconds)
    previous = signal.signal(signal.SIGTERM, lambda *_: clock.request_stop())
    try:
        with open_place(policy, Urls(database_url, redis_url), clock, log, exclusive=exclusive) as place:
            yield place
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def open_place(
    policy: SessionPolicy, urls: Urls, clock: RunClock, log: Any, *, exclusive: bool
) -> Iterator[OpenStores]:
    """As :func:`open_stores`, with the policy's own retries and the caller's clock."""
    stores = policy.spec.stores
    if stores.database:
        if not urls.database:
            raise ConfigurationError(f"no database URL: set {DATABASE_URL_ENV} or give --database-url")
        opened = initialise(policy.spec, urls, clock, log, exclusive=exclusive)
        try:
            yield OpenStores(
                policy, opened, opened.redis, SessionDirectory(opened.database, opened.redis, clock), clock
            )
        finally:
            opened.connection.close()
            if opened.redis:
                opened.redis.close()
        return
    assert stores.redis is not None  # the spec's own rule: there is a database, a Redis, or both
    if not urls.redis:
        raise ConfigurationError(f"no Redis URL: set {REDIS_URL_ENV} or give --redis-url")
    if exclusive:
        alone = open_redis(policy.spec, urls.redis, clock, log)
        try:
            yield OpenStores(policy, None, alone.store, SessionDirectory(None, alone.store, clock, alone.lock), clock)
        finally:
            alone.close()
        return
    redis = RedisStore(connect(urls.redis, stores.redis), stores.redis, policy.spec.retries.redis, clock, log)
    try:
        yield OpenStores(policy, None, redis, SessionDirectory(None, redis, clock), clock)
    finally:
        redis.close()
