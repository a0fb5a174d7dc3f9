"""How commands reach Redis: the same to one server and to a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from stores.redis.connection.scripts import Script

Argument = str | bytes | int
Command = tuple[Argument, ...]


class KeyScan(Protocol):
    """A SCAN under way."""

    @property
    def done(self) -> bool:
        """Whether all keys were seen."""

    def step(self) -> list[bytes]:
        """The next keys. After an error it goes on where it was."""


class RedisConnection(Protocol):
    """Connections to Redis. All methods raise the client's own errors, and may be called again after one."""

    def times(self) -> list[tuple[int, int]]:
        """Seconds and microseconds by the clock of each server that holds keys."""

    def infos(self, section: str) -> list[Mapping[str, Any]]:
        """What each server that holds keys says of itself (INFO)."""

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to commands of one key each, which follows the command's name; an error stands as a reply."""

    def existing(self, groups: Sequence[Sequence[bytes]]) -> list[Any]:
        """How many keys of each group there are; an error stands as a reply. It does not count as a use of a key."""

    def unlink(self, keys: Sequence[bytes]) -> list[Any]:
        """Deletes keys. The replies add up to how many there were; an error stands as a reply."""

    def evaluate(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> list[Any]:
        """A script's replies, one for each key; the arguments are as many for each."""

    def walk(self, pattern: bytes, count: int) -> KeyScan:
        """A SCAN for a pattern, looking at so many keys in each step."""

    def close(self) -> None:
        """Closes all connections."""
