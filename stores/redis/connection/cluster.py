"""Connection to a Redis Cluster: each command goes to the master of its key's slot and follows MOVED and ASK.

redis-py's RedisCluster is not used: it resends failed commands one at a time, each with its own timeout, so that one
dead node could delay a run by hours; and it needs more ACL permissions.
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

# Each round uses the slot owners that the round before learned; more are needed only while nodes disagree.
_ROUNDS = 16
_PAUSE_SECONDS = 0.05
_SLOTS = 16384


@dataclass(slots=True)
class _RoundResult:
    """What remains after one round of commands.

    Attributes:
        to_resend: indexes of the commands that have to be sent again.
        new_owners: nodes that MOVED replies named as a slot's owner.
        without_script: nodes that replied NOSCRIPT.
    """

    to_resend: list[int] = field(default_factory=list)
    new_owners: dict[Address, None] = field(default_factory=dict)
    without_script: dict[Address, None] = field(default_factory=dict)


class ClusterConnection:
    """Implements :class:`stores.redis.connection.interface.RedisConnection` for a cluster.

    Args:
        seeds: nodes to ask for the others.
        client: creates the client of one node.
    """

    def __init__(self, seeds: Sequence[Address], client: Callable[[Address], redis.Redis]) -> None:
        self._seeds = list(seeds)
        self._make_client = client
        self._clients: dict[Address, redis.Redis] = {}
        self._owners: list[Address | None] = []
        """Master of each slot; empty until the cluster is asked."""
        self._scripts: dict[str, Script] = {}

    def times(self) -> list[tuple[int, int]]:
        """TIME of each master."""
        return [self._execute_on(node, "TIME") for node in self.masters()]

    def infos(self, section: str) -> list[Mapping[str, Any]]:
        """The INFO section of each master."""
        return [self._execute_on(node, "INFO", section) for node in self.masters()]

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to all commands: one round trip per master, more only if slots have moved."""
        return self._send_by_slot([(_bytes(command[1]), command) for command in commands])

    def count_existing(self, groups: Sequence[Sequence[bytes]]) -> list[Any]:
        """How many keys of each group exist; one EXISTS per key, see :meth:`unlink`."""
        replies = iter(self._send_by_slot([(key, ("EXISTS", key)) for group in groups for key in group]))
        counts: list[Any] = []
        for group in groups:
            answers = [next(replies) for _ in group]
            errors = [answer for answer in answers if isinstance(answer, RedisError)]
            counts.append(errors[0] if errors else sum(answers))
        return counts

    def unlink(self, keys: Sequence[bytes]) -> list[Any]:
        """Deletes keys, one UNLINK per key: a node refuses commands with keys of several slots (CROSSSLOT)."""
        return self._send_by_slot([(key, ("UNLINK", key)) for key in keys])

    def evaluate(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> list[Any]:
        """A Lua script's replies; one EVALSHA per key, see :meth:`unlink`."""
        self._scripts[script.sha] = script
        per_key = len(arguments) // len(keys) if keys else 0
        replies = self._send_by_slot(
            [
                (key, ("EVALSHA", script.sha, 1, key, *arguments[i * per_key : (i + 1) * per_key]))
                for i, key in enumerate(keys)
            ]
        )
        return [reply[0] if isinstance(reply, list) else reply for reply in replies]

    def scan(self, pattern: bytes, count: int) -> ClusterScan:
        """A SCAN of all masters, one after the other."""
        return ClusterScan(self, pattern, count)

    def close(self) -> None:
        """Closes all connections."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    # --- nodes and slots -----------------------------------------------------------------------------------------

    def masters(self) -> dict[Address, int]:
        """The masters that own slots, each with one of its slots."""
        found: dict[Address, int] = {}
        for slot in range(_SLOTS):
            if (owner := self._slots()[slot]) is not None:
                found.setdefault(owner, slot)
        return found

    def owner(self, slot: int) -> Address:
        """The master that owns the slot.

        Raises:
            ClusterDownError: no node owns it.
        """
        owner = self._slots()[slot]
        if owner is None:
            self.forget_slots()
            raise ClusterDownError("a slot has no owner")
        return owner

    def client(self, node: Address) -> redis.Redis:
        """The client of a node."""
        if node not in self._clients:
            self._clients[node] = self._make_client(node)
        return self._clients[node]

    def forget_slots(self) -> None:
        """Reloads the slot owners before the next command."""
        self._owners = []

    def _slots(self) -> list[Address | None]:
        if not self._owners:
            self._load_slots([*self._clients, *self._seeds])
        return self._owners

    def _load_slots(self, nodes: Iterable[Address]) -> None:
        """Loads the slot owners from the first node that answers CLUSTER SLOTS."""
        error: RedisError = ClusterDownError("no node answered CLUSTER SLOTS")
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

    def _execute_on(self, node: Address, *command: Argument) -> Any:
        with self._forgetting_slots_on_failure():
            return self.client(node).execute_command(*command)  # type: ignore[no-untyped-call]

    def _send_to(self, node: Address, commands: Sequence[Command]) -> list[Any]:
        with self._forgetting_slots_on_failure():
            return send_commands(self.client(node), commands)

    @contextmanager
    def _forgetting_slots_on_failure(self) -> Iterator[None]:
        try:
            yield
        except (ConnectionError, TimeoutError, OSError):
            # The node may be dead and replaced: the next attempt asks who owns its slots now.
            self.forget_slots()
            raise

    def _send_by_slot(self, commands: Sequence[tuple[bytes, Command]]) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        slots = [key_slot(key) for key, _ in commands]
        unanswered = list(range(len(commands)))
        for number in range(_ROUNDS):
            if number > 1:
                time.sleep(_PAUSE_SECONDS)
            unanswered = self._send_round(commands, slots, unanswered, replies)
            if not unanswered:
                return replies
        self.forget_slots()
        raise TryAgainError("nodes keep redirecting commands to each other")

    def _send_round(
        self, commands: Sequence[tuple[bytes, Command]], slots: list[int], unanswered: list[int], replies: list[Any]
    ) -> list[int]:
        """Sends the unanswered commands. Returns the indexes of those to send again."""
        by_node: defaultdict[Address, list[int]] = defaultdict(list)
        for index in unanswered:
            by_node[self.owner(slots[index])].append(index)
        outcome = _RoundResult()
        migrating: defaultdict[Address, list[int]] = defaultdict(list)
        for node, indexes in by_node.items():
            answers = self._send_to(node, [commands[i][1] for i in indexes])
            for index, answer in zip(indexes, answers, strict=True):
                if isinstance(answer, AskError) and not isinstance(answer, MovedError):
                    migrating[_target(answer, node)].append(index)
                else:
                    self._record_reply(index, answer, node, replies, outcome)
        for node, indexes in migrating.items():
            # The slot is being migrated: with ASKING, its new node answers before it owns the slot.
            answers = self._send_to(node, [c for i in indexes for c in (("ASKING",), commands[i][1])])
            for index, asking, answer in zip(indexes, answers[::2], answers[1::2], strict=True):
                refused = isinstance(asking, RedisError)
                self._record_reply(index, asking if refused else answer, node, replies, outcome)
        for node in outcome.without_script:
            self._load_scripts(node)
        if outcome.new_owners:
            self._load_slots([*outcome.new_owners, *self._clients, *self._seeds])
        return outcome.to_resend

    def _record_reply(self, index: int, answer: Any, node: Address, replies: list[Any], outcome: _RoundResult) -> None:
        if isinstance(answer, MovedError):
            outcome.new_owners[_target(answer, node)] = None
        elif isinstance(answer, NoScriptError):
            outcome.without_script[node] = None
        elif isinstance(answer, ClusterDownError):
            self.forget_slots()
        if isinstance(answer, AskError | TryAgainError | NoScriptError):
            outcome.to_resend.append(index)
        else:
            replies[index] = answer

    def _load_scripts(self, node: Address) -> None:
        for reply in self._send_to(node, [("SCRIPT", "LOAD", script.text) for script in self._scripts.values()]):
            if isinstance(reply, RedisError):
                raise reply


class ClusterScan:
    """A SCAN of all masters, one after the other; after a failover the scan continues on the new master.

    Args:
        connection: to the cluster.
        pattern: glob pattern of the keys (MATCH).
        count: how many keys each call examines (COUNT).
    """

    def __init__(self, connection: ClusterConnection, pattern: bytes, count: int) -> None:
        self._connection = connection
        self._pattern = pattern
        self._count = count
        self._slots: list[int] | None = None
        """One slot of each master still to be scanned; the first one is being scanned."""
        self._node: Address | None = None
        self._cursor = 0

    @property
    def done(self) -> bool:
        """Whether all masters were scanned."""
        return self._slots == []

    def next_keys(self) -> list[bytes]:
        """The next page of keys."""
        if self._slots is None:
            self._slots = list(self._connection.masters().values())
        if self._node is None:
            self._node = self._connection.owner(self._slots[0])
        scan = SingleServerScan(self._connection.client(self._node), self._pattern, self._count, self._cursor)
        try:
            keys = scan.next_keys()
        except (RedisError, OSError):
            self._connection.forget_slots()
            self._node = None  # looked up again by its slot in the next attempt
            raise
        self._cursor = scan.cursor
        if scan.done:
            self._slots.pop(0)
            self._node = None
        return keys


def _owners(ranges: Sequence[Any], asked: Address) -> list[Address | None]:
    owners: list[Address | None] = [None] * _SLOTS
    known: dict[Address, Address] = {}
    for first, last, (host, port, *_), *_replicas in ranges:
        name = host.decode() if isinstance(host, bytes) else host
        # A node that does not know its own host means the one it was reached by.
        address = Address(asked.host if name in (None, "", "?") else name, int(port))
        owners[int(first) : int(last) + 1] = [known.setdefault(address, address)] * (int(last) - int(first) + 1)
    return owners


def _target(answer: AskError, node: Address) -> Address:
    return Address(answer.host or node.host, answer.port)


def _bytes(key: Argument) -> bytes:
    return key if isinstance(key, bytes) else str(key).encode()
