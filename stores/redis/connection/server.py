"""Sends commands to Redis and retries them as spec.retries.redis says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from redis.exceptions import RedisError, ResponseError

from policy.spec import Retry
from stores.model.calls import Store, calling
from stores.model.errors import RedisUnavailableError
from stores.redis.connection.errors import error_code, translate
from stores.redis.connection.interface import Argument, Command, RedisConnection
from stores.redis.connection.scripts import Script
from stores.waiting.clock import RunClock
from stores.waiting.retry import Retrier

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RedisServer:
    """The Redis of a policy, one server or a cluster, with retries.

    A command may be executed twice if its first reply was lost. Threads may share an instance; a lock serializes their
    commands.

    All methods raise RedisUnavailableError if Redis cannot be reached or keeps failing, and ConfigurationError if it
    refuses the login or a command.

    Args:
        connection: from :func:`stores.redis.connection.connect.connect`.
        retry: number of retries and the pause between them.
        clock: ends retries at the deadline.
        log: gets a warning per retry.
    """

    def __init__(self, connection: RedisConnection, retry: Retry, clock: RunClock, log: Any) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._retrier = Retrier(retry, (RedisUnavailableError,), clock, log, "Redis")

    def times(self) -> list[datetime]:
        """The clock of each server that holds keys."""
        replies = self._attempt(self._connection.times)
        return [_EPOCH + timedelta(seconds=int(seconds), microseconds=int(rest)) for seconds, rest in replies]

    def infos(self, section: str) -> list[Mapping[str, Any]]:
        """The INFO section of each server that holds keys."""
        return self._attempt(lambda: self._connection.infos(section))

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to several commands with one key each; None where the key has the wrong type (WRONGTYPE)."""
        if not commands:
            return []
        # Tested here, not in _checked: there are many replies, and few errors.
        return self._attempt(
            lambda: [_checked(r) if isinstance(r, RedisError) else r for r in self._connection.pipeline(commands)]
        )

    def count_existing(self, groups: Sequence[Sequence[bytes]]) -> list[int]:
        """How many keys of each group exist, of any type."""
        return (
            self._attempt(lambda: [_checked(reply) for reply in self._connection.count_existing(groups)])
            if groups
            else []
        )

    def unlink(self, keys: Sequence[bytes]) -> int:
        """Deletes keys. Returns how many existed."""
        return self._attempt(lambda: sum(_checked(reply) for reply in self._connection.unlink(keys))) if keys else 0

    def evaluate(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument] = ()) -> list[Any]:
        """A Lua script's replies, one per key. ``arguments`` is empty or holds the same number for each key."""
        return self._attempt(lambda: [_checked(reply) for reply in self._connection.evaluate(script, keys, arguments)])

    def scan(self, pattern: bytes, count: int) -> Iterator[list[bytes]]:
        """All keys that match the pattern, page by page. A key that exists throughout is returned, maybe twice.

        During a failover, or while slots move, keys may be missed until the next scan.
        """
        scan = self._connection.scan(pattern, count)
        while not scan.done:
            yield self._attempt(scan.next_keys)

    def close(self) -> None:
        """Closes the connections."""
        self._connection.close()

    def _attempt(self, work: Callable[[], T]) -> T:
        def attempt() -> T:
            try:
                with self._lock, calling(Store.REDIS):
                    return work()
            except (RedisError, OSError) as error:
                # Without its cause: a Redis error may quote the command, and with it a session id.
                raise translate(error) from None

        return self._retrier(attempt)


def _checked(reply: Any) -> Any:
    if isinstance(reply, ResponseError) and error_code(reply) == "WRONGTYPE":
        return None
    if isinstance(reply, RedisError):
        raise reply
    return reply
