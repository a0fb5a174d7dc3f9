"""A Redis Cluster: each command goes to the master of its key's slot, and follows the slot when it moves.

The client's own cluster class is not used: it sends what failed one command at a time, each with its own time-outs, so
that one dead node would hold up a run by hours; and it asks for rights that the work does not need.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    NoScriptError,
    RedisError,
    TimeoutError,
    TryAgainError,
)

from stores.redis.connection.interface import Argument, Command
from stores.redis.connection.scripts import Script
from stores.redis.connection.single_server import SingleServerScan, send_commands
from stores.redis.connection.url import Address

# Each round follows what the one before it learned; more are needed only while nodes contradict each other.
_ROUNDS = 16
_PAUSE_SECONDS = 0.05
_SLOTS = 16384


@dataclass(slots=True)
class _RoundResult:
    """What one round of commands has left to do.

    Attributes:
        left: commands, by their index, that have to be sent again.
        moved: nodes that own a slot which another was thought to own.
        scriptless: nodes that lack a script.
    """

    left: list[int] = field(default_factory=list)
    moved: dict[Address, None] = field(default_factory=dict)
    scriptless: dict[Address, None] = field(default_factory=dict)


class ClusterConnection:
    """Implements :class:`stores.redis.connection.interface.RedisConnection` for a cluster.

    Args:
        seeds: nodes to ask for all the others.
        client: makes a client for one node.
    """

    def __init__(self, seeds: Sequence[Address], client: Callable[[Address], redis.Redis]) -> None:
        self._seeds = list(seeds)
        self._make_client = client
        self._clients: dict[Address, redis.Redis] = {}
        self._owners: list[Address | None] = []
        """By slot; empty when it has to be asked for."""
        self._scripts: dict[str, Script] = {}

    def times(self) -> list[tuple[int, int]]:
        """The time by the clock of each master."""
        return [self._ask(node, "TIME") for node in self.masters()]

    def infos(self, section: str) -> list[Mapping[str, Any]]:
        """What each master says of itself."""
        return [self._ask(node, "INFO", section) for node in self.masters()]

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """One round trip to each master that has one of the keys, and more only where slots have moved."""
        return self._routed([(_bytes(command[1]), command) for command in commands])

    def existing(self, groups: Sequence[Sequence[bytes]]) -> list[Any]:
        """One command for each key, for the reason that :meth:`unlink` has."""
        replies = iter(self._routed([(key, ("EXISTS", key)) for group in groups for key in group]))
        counts: list[Any] = []
        for group in groups:
            answers = [next(replies) for _ in group]
            errors = [answer for answer in answers if isinstance(answer, RedisError)]
            counts.append(errors[0] if errors else sum(answers))
        return counts

    def unlink(self, keys: Sequence[bytes]) -> list[Any]:
        """One command for each key: a node refuses a command with keys of several slots."""
        return self._routed([(key, ("UNLINK", key)) for key in keys])

    def evaluate(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> list[Any]:
        """One call for each key, for the same reason."""
        self._scripts[script.sha] = script
        each = len(arguments) // len(keys) if keys else 0
        replies = self._routed(
            [
                (key, ("EVALSHA", script.sha, 1, key, *arguments[i * each : (i + 1) * each]))
                for i, key in enumerate(keys)
            ]
        )
        return [reply[0] if isinstance(reply, list) else reply for reply in replies]

    def walk(self, pattern: bytes, count: int) -> ClusterScan:
        """A SCAN of all masters, one after the other."""
        return ClusterScan(self, pattern, count)

    def close(self) -> None:
        """Closes all connections."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    # --- nodes and slots -----------------------------------------------------------------------------------------

    def masters(self) -> dict[Address, int]:
        """The nodes that have slots, each with one of them."""
        found: dict[Address, int] = {}
        for slot in range(_SLOTS):
            if (owner := self._slots()[slot]) is not None:
                found.setdefault(owner, slot)
        return found

    def owner(self, slot: int) -> Address:
        """The node that has the slot.

        Raises:
            ClusterDownError: none has it.
        """
        owner = self._slots()[slot]
        if owner is None:
            self.forget()
            raise ClusterDownError("a slot has no owner")
        return owner

    def client(self, node: Address) -> redis.Redis:
        """The client of a node."""
        if node not in self._clients:
            self._clients[node] = self._make_client(node)
        return self._clients[node]

    def forget(self) -> None:
        """Has the owners of slots asked for again before the next command."""
        self._owners = []

    def _slots(self) -> list[Address | None]:
        if not self._owners:
            self._learn([*self._clients, *self._seeds])
        return self._owners

    def _learn(self, nodes: Iterable[Address]) -> None:
        """Asks the first of the nodes that answers who owns which slot."""
        error: RedisError = ClusterDownError("no node knows the slots")
        for node in dict.fromkeys(nodes):
            try:
                ranges = self.client(node).execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
            except AuthenticationError:
                raise
            except (ConnectionError, TimeoutError, OSError) as failure:
                error = failure if isinstance(failure, RedisError) else ConnectionError()
                error.__cause__ = failure.__cause__ if isinstance(failure, RedisError) else failure
                continue
            if ranges:
                self._owners = _owners(ranges, node)
                self._drop_clients()
                return
        raise error

    def _drop_clients(self) -> None:
        known = {*self._owners, *self._seeds}
        for node in [n for n in self._clients if n not in known]:
            self._clients.pop(node).close()

    # --- commands ------------------------------------------------------------------------------------------------

    def _ask(self, node: Address, *command: Argument) -> Any:
        with self._forgetting():
            return self.client(node).execute_command(*command)  # type: ignore[no-untyped-call]

    def _at(self, node: Address, commands: Sequence[Command]) -> list[Any]:
        with self._forgetting():
            return send_commands(self.client(node), commands)

    @contextmanager
    def _forgetting(self) -> Iterator[None]:
        try:
            yield
        except (ConnectionError, TimeoutError, OSError):
            # Dead, perhaps, and replaced: the next attempt asks who has its slots now.
            self.forget()
            raise

    def _routed(self, commands: Sequence[tuple[bytes, Command]]) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        slots = [key_slot(key) for key, _ in commands]
        waiting = list(range(len(commands)))
        for number in range(_ROUNDS):
            if number > 1:
                time.sleep(_PAUSE_SECONDS)
            waiting = self._round(commands, slots, waiting, replies)
            if not waiting:
                return replies
        self.forget()
        raise TryAgainError("nodes keep sending each other's slots away")

    def _round(
        self, commands: Sequence[tuple[bytes, Command]], slots: list[int], waiting: list[int], replies: list[Any]
    ) -> list[int]:
        """Sends what waits, and returns what has to be sent again."""
        by_node: defaultdict[Address, list[int]] = defaultdict(list)
        for index in waiting:
            by_node[self.owner(slots[index])].append(index)
        outcome = _RoundResult()
        asked: defaultdict[Address, list[int]] = defaultdict(list)
        for node, indexes in by_node.items():
            answers = self._at(node, [commands[i][1] for i in indexes])
            for index, answer in zip(indexes, answers, strict=True):
                if isinstance(answer, AskError) and not isinstance(answer, MovedError):
                    asked[_target(answer, node)].append(index)
                else:
                    self._settle(index, answer, node, replies, outcome)
        for node, indexes in asked.items():
            # The key is on its way: its new node answers, though it does not own the slot yet.
            answers = self._at(node, [c for i in indexes for c in (("ASKING",), commands[i][1])])
            for index, asking, answer in zip(indexes, answers[::2], answers[1::2], strict=True):
                refused = isinstance(asking, RedisError)
                self._settle(index, asking if refused else answer, node, replies, outcome)
        for node in outcome.scriptless:
            self._load_scripts(node)
        if outcome.moved:
            self._learn([*outcome.moved, *self._clients, *self._seeds])
        return outcome.left

    def _settle(self, index: int, answer: Any, node: Address, replies: list[Any], outcome: _RoundResult) -> None:
        if isinstance(answer, MovedError):
            outcome.moved[_target(answer, node)] = None
        elif isinstance(answer, NoScriptError):
            outcome.scriptless[node] = None
        elif isinstance(answer, ClusterDownError):
            self.forget()
        if isinstance(answer, AskError | TryAgainError | NoScriptError):
            outcome.left.append(index)
        else:
            replies[index] = answer

    def _load_scripts(self, node: Address) -> None:
        for reply in self._at(node, [("SCRIPT", "LOAD", script.text) for script in self._scripts.values()]):
            if isinstance(reply, RedisError):
                raise reply


class ClusterScan:
    """A SCAN of all masters, one after the other; when one dies, its successor goes on.

    Args:
        link: to the cluster.
        pattern: what keys look like.
        count: how many keys each step looks at.
    """

    def __init__(self, link: ClusterConnection, pattern: bytes, count: int) -> None:
        self._link = link
        self._pattern = pattern
        self._count = count
        self._slots: list[int] | None = None
        """One slot of each master that is still to be scanned; the first is being scanned."""
        self._node: Address | None = None
        self._cursor = 0

    @property
    def done(self) -> bool:
        """Whether all masters were scanned."""
        return self._slots == []

    def step(self) -> list[bytes]:
        """The next keys."""
        if self._slots is None:
            self._slots = list(self._link.masters().values())
        if self._node is None:
            self._node = self._link.owner(self._slots[0])
        walk = SingleServerScan(self._link.client(self._node), self._pattern, self._count, self._cursor)
        try:
            keys = walk.step()
        except (RedisError, OSError):
            self._link.forget()
            self._node = None  # found anew, by the slot, in the next attempt
            raise
        self._cursor = walk.cursor
        if walk.done:
            self._slots.pop(0)
            self._node = None
        return keys


def _owners(ranges: Sequence[Any], asked: Address) -> list[Address | None]:
    owners: list[Address | None] = [None] * _SLOTS
    known: dict[Address, Address] = {}
    for first, last, (host, port, *_), *_replicas in ranges:
        name = host.decode() if isinstance(host, bytes) else host
        # A node that does not know its own name means the one it was asked by.
        address = Address(asked.host if name in (None, "", "?") else name, int(port))
        owners[int(first) : int(last) + 1] = [known.setdefault(address, address)] * (int(last) - int(first) + 1)
    return owners


def _target(answer: AskError, node: Address) -> Address:
    return Address(answer.host or node.host, answer.port)


def _bytes(key: Argument) -> bytes:
    return key if isinstance(key, bytes) else str(key).encode()
