"""Commands to Redis, tried again as the policy says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from redis.exceptions import RedisError, ResponseError

from policy.spec import Retry
from stores.model.calls import Store, calling
from stores.model.errors import RedisUnavailableError
from stores.redis.connection.errors import translate
from stores.redis.connection.interface import Argument, Command, RedisConnection
from stores.redis.connection.scripts import Script
from stores.waiting.clock import RunClock
from stores.waiting.retry import Retrier

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RedisServer:
    """The Redis of a run: one server, or a cluster. Every command may be sent twice, when the first answer was lost.

    Several threads may use it; one at a time speaks with Redis.

    All methods raise RedisUnavailableError if Redis cannot be reached or keeps failing, and ConfigurationError if it
    refuses the login or a command.

    Args:
        link: from :func:`stores.redis.connection.connect.connect`.
        retry: how often and after which pause a command is tried again.
        clock: of the run.
        log: of the run.
    """

    def __init__(self, link: RedisConnection, retry: Retry, clock: RunClock, log: Any) -> None:
        self._link = link
        self._one_at_a_time = threading.Lock()
        self._retrier = Retrier(retry, (RedisUnavailableError,), clock, log, "Redis")

    def times(self) -> list[datetime]:
        """The time by the clock of each server that holds keys."""
        replies = self._attempt(self._link.times)
        return [_EPOCH + timedelta(seconds=int(seconds), microseconds=int(rest)) for seconds, rest in replies]

    def infos(self, section: str) -> list[Mapping[str, Any]]:
        """What each server that holds keys says of itself."""
        return self._attempt(lambda: self._link.infos(section))

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to several commands of one key each; None to one that found a key of the wrong type."""
        if not commands:
            return []
        # Most replies are no errors, and there are many.
        return self._attempt(
            lambda: [_checked(r) if isinstance(r, RedisError) else r for r in self._link.pipeline(commands)]
        )

    def existing(self, groups: Sequence[Sequence[bytes]]) -> list[int]:
        """How many keys of each group there are, of whatever type."""
        return self._attempt(lambda: [_checked(reply) for reply in self._link.existing(groups)]) if groups else []

    def unlink(self, keys: Sequence[bytes]) -> int:
        """Deletes keys. Returns how many there were."""
        return self._attempt(lambda: sum(_checked(reply) for reply in self._link.unlink(keys))) if keys else 0

    def evaluate(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument] = ()) -> list[Any]:
        """A script's replies, one for each key; the arguments are none, or as many for each key."""
        return self._attempt(lambda: [_checked(reply) for reply in self._link.evaluate(script, keys, arguments)])

    def scan(self, pattern: bytes, count: int) -> Iterator[list[bytes]]:
        """All keys that fit the pattern, a page at a time. A key that exists throughout is found, perhaps twice.

        Not so where a replica takes over or slots move meanwhile: then a key may be missed until the next scan.
        """
        walk = self._link.walk(pattern, count)
        while not walk.done:
            yield self._attempt(walk.step)

    def close(self) -> None:
        """Closes the connections."""
        self._link.close()

    def _attempt(self, work: Callable[[], T]) -> T:
        def attempt() -> T:
            try:
                with self._one_at_a_time, calling(Store.REDIS):
                    return work()
            except (RedisError, OSError) as error:
                # Without its cause: a Redis error quotes the command, and with it a session's id.
                raise translate(error) from None

        return self._retrier(attempt)


def _checked(reply: Any) -> Any:
    if isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE"):
        return None
    if isinstance(reply, RedisError):
        raise reply
    return reply
