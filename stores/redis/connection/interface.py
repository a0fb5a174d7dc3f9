"""The connection interface that one Redis server and a Redis Cluster both implement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from stores.redis.connection.scripts import Script

Argument = str | bytes | int
Command = tuple[Argument, ...]


class KeyScan(Protocol):
    """A SCAN in progress."""

    @property
    def done(self) -> bool:
        """Whether the scan is complete."""

    def next_keys(self) -> list[bytes]:
        """The next page of keys. After an error, the next call continues from the same cursor."""


class RedisConnection(Protocol):
    """Connections to Redis. All methods raise redis-py's errors and can be called again afterwards."""

    def times(self) -> list[tuple[int, int]]:
        """TIME of each server that holds keys: seconds and microseconds."""

    def infos(self, section: str) -> list[Mapping[str, Any]]:
        """The INFO section of each server that holds keys."""

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to several commands, each with its only key as first argument; errors are returned as replies."""

    def count_existing(self, groups: Sequence[Sequence[bytes]]) -> list[Any]:
        """How many keys of each group exist (EXISTS); errors are returned as replies. Idle times do not change."""

    def unlink(self, keys: Sequence[bytes]) -> list[Any]:
        """Deletes keys (UNLINK). The replies add up to the number deleted; errors are returned as replies."""

    def evaluate(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> list[Any]:
        """A Lua script's replies, one per key. ``arguments`` holds the same number of arguments for each key."""

    def scan(self, pattern: bytes, count: int) -> KeyScan:
        """A SCAN with MATCH and COUNT."""

    def close(self) -> None:
        """Closes all connections."""
