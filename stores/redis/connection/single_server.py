"""Connection to one Redis server: standalone, or the master behind Sentinel."""

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

# Redis serves no other client while it executes a command.
_KEYS_PER_COMMAND = 500


class SingleServerConnection:
    """Implements :class:`stores.redis.connection.interface.RedisConnection` for one server.

    Args:
        client: redis-py client of the server.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def times(self) -> list[tuple[int, int]]:
        """TIME of the server."""
        return [self._execute("TIME")]

    def infos(self, section: str) -> list[Mapping[str, Any]]:
        """The INFO section of the server."""
        return [self._execute("INFO", section)]

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to all commands, in one round trip."""
        return send_commands(self._client, commands)

    def count_existing(self, groups: Sequence[Sequence[bytes]]) -> list[Any]:
        """How many keys of each group exist; one EXISTS per group."""
        return send_commands(self._client, [("EXISTS", *group) for group in groups])

    def unlink(self, keys: Sequence[bytes]) -> list[Any]:
        """Deletes keys, many per UNLINK."""
        return send_commands(self._client, [("UNLINK", *group) for group in batches(keys, _KEYS_PER_COMMAND)])

    def evaluate(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> list[Any]:
        """A Lua script's replies, with many keys per EVALSHA."""
        per_key = len(arguments) // len(keys) if keys else 0
        calls: list[Command] = []
        for start in range(0, len(keys), _KEYS_PER_COMMAND):
            group = keys[start : start + _KEYS_PER_COMMAND]
            own_arguments = arguments[start * per_key : (start + len(group)) * per_key]
            calls.append(("EVALSHA", script.sha, len(group), *group, *own_arguments))
        answers = send_commands(self._client, calls)
        if unknown := [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]:
            self._execute("SCRIPT LOAD", script.text)
            for number, answer in zip(unknown, send_commands(self._client, [calls[i] for i in unknown]), strict=True):
                answers[number] = answer
        replies: list[Any] = []
        for answer in answers:
            if isinstance(answer, ResponseError):
                self._raise(answer)
            replies += answer
        return replies

    def _raise(self, error: ResponseError) -> None:
        if "READONLY" not in str(error):
            raise error
        # Before Redis 7, a script's error has no code of its own, only its text: this server is now a replica.
        self._client.connection_pool.disconnect()
        raise ReadOnlyError from None

    def scan(self, pattern: bytes, count: int) -> SingleServerScan:
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
        pattern: glob pattern of the keys (MATCH).
        count: how many keys each call examines (COUNT).
        cursor: where to start.
    """

    def __init__(self, client: redis.Redis, pattern: bytes, count: int, cursor: int = 0) -> None:
        self._client = client
        self._pattern = pattern
        self._count = count
        self.cursor = cursor
        self.done = False

    def next_keys(self) -> list[bytes]:
        """The next page of keys."""
        keys: list[bytes]
        self.cursor, keys = self._client.execute_command(  # type: ignore[no-untyped-call]
            "SCAN", self.cursor, "MATCH", self._pattern, "COUNT", self._count
        )
        self.done = not self.cursor
        return keys


def send_commands(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """The replies of one server to several commands in one round trip; errors are returned as replies.

    redis-py's own pipeline inspects each argument and each reply, which takes longer than the commands take the server.
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
        # Unread replies may remain: the next command must not read them as its own.
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    finally:
        pool.release(connection)


def _reply(connection: AbstractConnection) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
