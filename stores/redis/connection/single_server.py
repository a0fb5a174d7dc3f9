"""One Redis server: stand-alone, or the master that sentinels name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis
from hiredis import pack_command
from redis.connection import AbstractConnection
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from stores.model.batches import batches
from stores.redis.connection.interface import Argument, Command
from stores.redis.connection.scripts import Script

# Redis serves nobody else during a command.
_KEYS_PER_COMMAND = 500


class SingleServerConnection:
    """Implements :class:`stores.redis.connection.interface.RedisConnection` for one server.

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
        return send_commands(self._client, commands)

    def existing(self, groups: Sequence[Sequence[bytes]]) -> list[Any]:
        """One command for each group."""
        return send_commands(self._client, [("EXISTS", *group) for group in groups])

    def unlink(self, keys: Sequence[bytes]) -> list[Any]:
        """Few commands, with many keys each."""
        return send_commands(self._client, [("UNLINK", *group) for group in batches(keys, _KEYS_PER_COMMAND)])

    def evaluate(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> list[Any]:
        """Few calls, with many keys each."""
        each = len(arguments) // len(keys) if keys else 0
        calls: list[Command] = []
        for start in range(0, len(keys), _KEYS_PER_COMMAND):
            group = keys[start : start + _KEYS_PER_COMMAND]
            given = arguments[start * each : (start + len(group)) * each]
            calls.append(("EVALSHA", script.sha, len(group), *group, *given))
        answers = send_commands(self._client, calls)
        if lacking := [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]:
            self._execute("SCRIPT LOAD", script.text)
            for number, answer in zip(lacking, send_commands(self._client, [calls[i] for i in lacking]), strict=True):
                answers[number] = answer
        replies: list[Any] = []
        for answer in answers:
            if isinstance(answer, ResponseError):
                self._refused(answer)
            replies += answer
        return replies

    def _refused(self, error: ResponseError) -> None:
        if "READONLY" not in str(error):
            raise error
        # From within a script, before Redis 7, the client does not know that error: this is no master any more.
        self._client.connection_pool.disconnect()
        raise ReadOnlyError from None

    def walk(self, pattern: bytes, count: int) -> SingleServerScan:
        """A SCAN of the server."""
        return SingleServerScan(self._client, pattern, count)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _execute(self, *command: Argument) -> Any:
        return self._client.execute_command(*command)  # type: ignore[no-untyped-call]


class SingleServerScan:
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


def send_commands(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """The replies of one server to several commands in one round trip; an error stands as a reply.

    Commands are sent, and replies returned, as they are: the client's own pipeline looks at each argument and each
    reply, which takes it longer than the commands take the server.
    """
    if not commands:
        return []
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        packed = b"".join(pack_command(command) for command in commands)  # type: ignore[arg-type]
        connection.send_packed_command([packed])  # type: ignore[no-untyped-call]
        return [_reply(connection) for _ in commands]
    except BaseException:
        # There may be replies that nobody has read: the next command must not take them for its own.
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    finally:
        pool.release(connection)


def _reply(connection: AbstractConnection) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
