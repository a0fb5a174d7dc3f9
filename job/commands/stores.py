"""A policy's stores, opened for a command."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from job.clock import RunClock
from job.commands.directory import SessionDirectory
from job.errors import ConfigurationError
from job.redisstore.connect import connect
from job.redisstore.store import RedisStore
from job.steps.initialise import Opened, Urls, initialise
from policy.manifest import SessionPolicy
from policy.names import DATABASE_URL_ENV, REDIS_URL_ENV


@dataclass(frozen=True, slots=True)
class Place:
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
) -> Iterator[Place]:
    """The stores of a policy, checked as for a run.

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
    stores = policy.spec.stores
    clock = RunClock(policy.spec.job.timeout_seconds)
    previous = signal.signal(signal.SIGTERM, lambda *_: clock.request_stop())
    opened: Opened | None = None
    redis: RedisStore | None = None
    try:
        if stores.database:
            if not database_url:
                raise ConfigurationError(f"no database URL: set {DATABASE_URL_ENV} or give --database-url")
            opened = initialise(policy.spec, Urls(database_url, redis_url), clock, log, exclusive=exclusive)
            redis = opened.redis
        elif stores.redis:
            if not redis_url:
                raise ConfigurationError(f"no Redis URL: set {REDIS_URL_ENV} or give --redis-url")
            redis = RedisStore(connect(redis_url, stores.redis), stores.redis, policy.spec.retries.redis, clock, log)
        directory = SessionDirectory(opened.database if opened else None, redis, clock)
        yield Place(policy, opened, redis, directory, clock)
    finally:
        signal.signal(signal.SIGTERM, previous)
        if opened:
            opened.link.close()
        if redis:
            redis.close()
