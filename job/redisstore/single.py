"""One Redis server: stand-alone, or the master that sentinels name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from job.redisstore.link import Argument, Command
from job.redisstore.scripts import Script


class SingleLink:
    """Implements :class:`job.redisstore.link.Link` for one server.

    Args:
        client: knows where the server is.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def times(self) -> list[tuple[int, int]]:
        """The time by the server's clock."""
        return [self._execute("TIME")]

    def infos(self, section: str) -> list[Mapping[str, Any]]:
        """What the server says of itself."""
        return [self._execute("INFO", section)]

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """All commands in one round trip."""
        return send(self._client, commands)

    def unlink(self, keys: Sequence[bytes]) -> list[Any]:
        """All keys in one command."""
        return [self._execute("UNLINK", *keys)]

    def evaluate(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> list[Any]:
        """All keys in one call."""
        if not keys:
            return []
        call = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        try:
            replies: list[Any] = self._execute(*call)
        except NoScriptError:
            self._execute("SCRIPT LOAD", script.text)
            replies = self._execute(*call)
        except ResponseError as error:
            if "READONLY" not in str(error):
                raise
            # From within a script, before Redis 7, the client does not know that error: this is no master any more.
            self._client.connection_pool.disconnect()
            raise ReadOnlyError from None
        return replies

    def walk(self, pattern: bytes, count: int) -> SingleWalk:
        """A SCAN of the server."""
        return SingleWalk(self._client, pattern, count)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _execute(self, *command: Argument) -> Any:
        return self._client.execute_command(*command)  # type: ignore[no-untyped-call]


class SingleWalk:
    """A SCAN of one server.

    Args:
        client: of the server.
        pattern: what keys look like.
        count: how many keys each step looks at.
        cursor: where to begin.
    """

    def __init__(self, client: redis.Redis, pattern: bytes, count: int, cursor: int = 0) -> None:
        self._client = client
        self._pattern = pattern
        self._count = count
        self.cursor = cursor
        self.done = False

    def step(self) -> list[bytes]:
        """The next keys."""
        keys: list[bytes]
        self.cursor, keys = self._client.execute_command(  # type: ignore[no-untyped-call]
            "SCAN", self.cursor, "MATCH", self._pattern, "COUNT", self._count
        )
        self.done = not self.cursor
        return keys


def send(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """The replies of one server to several commands in one round trip; an error stands as a reply."""
    with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
        return pipeline.execute(raise_on_error=False)
