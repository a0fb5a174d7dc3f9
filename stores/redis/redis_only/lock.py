"""The exclusive lock on the sessions of a Redis that no database stands behind.

A key that ends by itself soon after its holder, and that the holder renews. All that hangs on it is that two runs do
not do the same work: each deletion looks again at what it deletes, in the very command.
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
# A server that hangs must not keep a run from its report.
_PATIENCE_SECONDS = 5.0


class RedisLock:
    """A lock, renewed in the background until it is closed.

    Args:
        link: connections of its own, for they are used from a second thread.
        retry: how often and after which pause a command of the run is tried again.
        clock: of the run.
        log: of the run.
        template: of the session keys: one lock for the same sessions, whichever policy names them.
        ttl_seconds: how long it outlives its holder.
    """

    def __init__(
        self,
        link: RedisConnection,
        retry: Retry,
        clock: RunClock,
        log: Any,
        *,
        template: str,
        ttl_seconds: float = TTL_SECONDS,
    ) -> None:
        self._server = RedisServer(link, retry, clock, log)
        # In the background the next renewal is the next attempt; one at once is for a connection that was closed.
        self._background = RedisServer(link, Retry(attempts=1, delay_seconds=0), clock, log)
        self._key = LOCK_PREFIX + template.encode()
        self._token = secrets.token_bytes(16).hex().encode()
        self._milliseconds = int(ttl_seconds * 1000)
        self._pause = ttl_seconds / _RENEWALS_PER_TTL
        self._one_at_a_time = threading.Lock()
        self._closing = threading.Event()
        self._renewer: threading.Thread | None = None

    def acquire(self) -> None:
        """Takes the lock, without waiting.

        Raises:
            LockHeldError: another run has it.
            RedisUnavailableError, ConfigurationError: Redis cannot be asked.
        """
        with self._one_at_a_time:
            (taken,) = self._server.pipeline([("SET", self._key, self._token, "NX", "PX", self._milliseconds)])
            if not taken:
                # Or the answer to a first attempt was lost.
                (holder,) = self._server.pipeline([("GET", self._key)])
                if holder != self._token:
                    raise LockHeldError
        self._renewer = threading.Thread(target=self._renew_until_closed, name="redis-lock", daemon=True)
        self._renewer.start()

    def check(self) -> None:
        """Called before each batch; renews the lock.

        Raises:
            LockLostError: it ended, or another run has it.
            RedisUnavailableError, ConfigurationError: Redis cannot be asked.
        """
        if not self._renew(self._server):
            raise LockLostError("the exclusive lock in Redis was lost; the run stopped before its next batch")

    def close(self) -> None:
        """Gives the lock back, if it is still ours; closes the connections."""
        self._closing.set()
        if self._renewer is not None:
            self._renewer.join(_PATIENCE_SECONDS)
            with suppress(RunError, StopRequestedError):  # else it ends by itself
                self._background.evaluate(scripts.RELEASE, [self._key], [self._token])
        self._server.close()

    def _renew(self, server: RedisServer) -> bool:
        with self._one_at_a_time:
            (renewed,) = server.evaluate(scripts.RENEW, [self._key], [self._token, self._milliseconds])
        return bool(renewed)

    def _renew_until_closed(self) -> None:
        while not self._closing.wait(self._pause):
            # What goes wrong here is told by the next check.
            with suppress(RunError, StopRequestedError):
                self._renew(self._background)
