"""Commands to Redis, tried again as the policy says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis
from redis.exceptions import RedisError, ResponseError

from job.clock import RunClock
from job.errors import RedisUnavailableError
from job.redisstore.connect import translate
from job.retry import Retrier
from policy.spec import Retry

T = TypeVar("T")

Command = tuple[str | bytes | int, ...]


class RedisServer:
    """The Redis of a run. Every command may be sent twice, when the answer to the first was lost.

    Args:
        client: from :func:`job.redisstore.connect.connect`.
        retry: how often and after which pause a command is tried again.
        clock: of the run.
        log: of the run.
    """

    def __init__(self, client: redis.Redis, retry: Retry, clock: RunClock, log: Any) -> None:
        self._client = client
        self._retrier = Retrier(retry, (RedisUnavailableError,), clock, log, "Redis")

    def command(self, *command: str | bytes | int) -> Any:
        """The reply to one command.

        Raises:
            RedisUnavailableError: Redis cannot be reached, or keeps failing.
            ConfigurationError: Redis refuses the login or the command.
        """
        return self._attempt(lambda: self._client.execute_command(*command))  # type: ignore[no-untyped-call]

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to several commands in one round trip; None to one that found a key of the wrong type.

        Raises:
            RedisUnavailableError, ConfigurationError: as :meth:`command`.
        """
        if not commands:
            return []

        def send() -> list[Any]:
            with self._client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                return [_checked(reply) for reply in pipeline.execute(raise_on_error=False)]

        return self._attempt(send)

    def script(self, text: str) -> Callable[[Sequence[bytes], Sequence[int]], Any]:
        """A Lua script as a function of keys and arguments; it raises as :meth:`command`."""
        registered = self._client.register_script(text)
        return lambda keys, arguments: self._attempt(lambda: registered(keys, arguments))

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def _attempt(self, work: Callable[[], T]) -> T:
        def attempt() -> T:
            try:
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
