"""The exclusive lock of runs without a database: a Redis key with a TTL that its holder renews.

The lock only saves double work. Two runs at the same time could not delete wrong sessions: each deletion checks the
session again, atomically.
"""

from __future__ import annotations

import secrets
import threading
from contextlib import suppress
from typing import Any

from policy.spec import Retry
from stores.model.errors import LockHeldError, LockLostError, RunError, StopRequestedError
from stores.redis.connection import scripts
from stores.redis.connection.interface import RedisConnection
from stores.redis.connection.server import RedisServer
from stores.redis.keys import LOCK_PREFIX
from stores.waiting.clock import RunClock

TTL_SECONDS = 60
_RENEWALS_PER_TTL = 6
# A server that hangs must not delay the run report.
_JOIN_SECONDS = 5.0


class RedisLock:
    """A lock that a background thread renews until it is closed.

    Args:
        connection: not shared: a second thread uses it.
        retry: number of retries and the pause between them.
        clock: ends retries at the deadline.
        log: gets a warning per retry.
        template: stores.redis.keys.session: policies for the same sessions share a lock.
        ttl_seconds: how long the lock outlives a holder that was killed.
    """

    def __init__(
        self,
        connection: RedisConnection,
        retry: Retry,
        clock: RunClock,
        log: Any,
        *,
        template: str,
        ttl_seconds: float = TTL_SECONDS,
    ) -> None:
        self._server = RedisServer(connection, retry, clock, log)
        # In the background the next renewal is the next attempt; one immediate retry is for a closed connection.
        self._background = RedisServer(connection, Retry(attempts=1, delay_seconds=0), clock, log)
        self._key = LOCK_PREFIX + template.encode()
        self._token = secrets.token_bytes(16).hex().encode()
        self._milliseconds = int(ttl_seconds * 1000)
        self._renewal_seconds = ttl_seconds / _RENEWALS_PER_TTL
        self._mutex = threading.Lock()
        self._closing = threading.Event()
        self._renewer: threading.Thread | None = None

    def acquire(self) -> None:
        """Acquires the lock, without waiting.

        Raises:
            LockHeldError: another run holds it.
            RedisUnavailableError, ConfigurationError: Redis cannot be used.
        """
        with self._mutex:
            (taken,) = self._server.pipeline([("SET", self._key, self._token, "NX", "PX", self._milliseconds)])
            if not taken:
                # Our own token means that the reply to a first attempt was lost.
                (holder,) = self._server.pipeline([("GET", self._key)])
                if holder != self._token:
                    raise LockHeldError
        self._renewer = threading.Thread(target=self._renew_until_closed, name="redis-lock", daemon=True)
        self._renewer.start()

    def check(self) -> None:
        """Renews the lock; to be called before each batch.

        Raises:
            LockLostError: it expired, or another run holds it.
            RedisUnavailableError, ConfigurationError: Redis cannot be used.
        """
        if not self._renew(self._server):
            raise LockLostError("the lock in Redis was lost; the run stopped before its next batch")

    def close(self) -> None:
        """Releases the lock if this run still holds it, and closes the connections."""
        self._closing.set()
        if self._renewer is not None:
            self._renewer.join(_JOIN_SECONDS)
            with suppress(RunError, StopRequestedError):  # then it expires by its TTL
                self._background.evaluate(scripts.RELEASE_LOCK, [self._key], [self._token])
        self._server.close()

    def _renew(self, server: RedisServer) -> bool:
        with self._mutex:
            (renewed,) = server.evaluate(scripts.RENEW_LOCK, [self._key], [self._token, self._milliseconds])
        return bool(renewed)

    def _renew_until_closed(self) -> None:
        while not self._closing.wait(self._renewal_seconds):
            # The next check() reports what goes wrong here.
            with suppress(RunError, StopRequestedError):
                self._renew(self._background)
