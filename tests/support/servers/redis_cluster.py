"""An embedded Redis Cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis
from redis.crc import key_slot

from job.demo.servers.errors import EmbeddedServerError
from job.demo.servers.process import HOST
from tests.support.ports import free_port
from tests.support.servers.restartable import RestartableRedis
from tests.support.servers.server_group import ServerGroup

_SLOTS = 16384
_BUS_OFFSET = 10_000
_POLL_SECONDS = 0.05
_NODE_OPTIONS = {
    "cluster-enabled": "yes",
    "cluster-config-file": "nodes.conf",
    # Short, so that a dead master is replaced in a few seconds.
    "cluster-node-timeout": "1000",
    "cluster-replica-validity-factor": "0",
    "databases": "1",
    "repl-diskless-sync-delay": "0",
    "repl-ping-replica-period": "1",
}


class ClusterNode(RestartableRedis):
    """A node, alone until it meets the others."""

    def __init__(self, start_timeout_seconds: float = 30) -> None:
        super().__init__(options=_NODE_OPTIONS, start_timeout_seconds=start_timeout_seconds)

    def client(self) -> redis.Redis:
        """A client of this node alone."""
        return redis.Redis(host=HOST, port=self.port)

    def call(self, *command: Any) -> Any:
        """The reply to one command sent to this node."""
        with self.client() as client:
            return client.execute_command(*command)

    @property
    def node_id(self) -> str:
        """How the other nodes name it."""
        return str(self.call("CLUSTER", "MYID").decode())

    def _choose_port(self) -> int:
        return self._known_port or free_port(_BUS_OFFSET)


class EmbeddedRedisCluster(ServerGroup):
    """Masters that share the slots evenly, each with its replicas; reached at `url` without a password.

    Args:
        masters: How many; a cluster needs three to replace a dead one.
        replicas: How many for each master.
        timeout_seconds: How long it may take until the cluster, or a change of it, is complete.
    """

    def __init__(self, masters: int = 3, replicas: int = 0, timeout_seconds: float = 40) -> None:
        self.masters = [ClusterNode() for _ in range(masters)]
        self.replicas = [ClusterNode() for _ in range(masters * replicas)]
        self._timeout_seconds = timeout_seconds
        super().__init__()

    @property
    def nodes(self) -> list[ClusterNode]:
        """All nodes."""
        return self.masters + self.replicas

    @property
    def url(self) -> str:
        """URL that names all nodes."""
        return "redis://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    def _start_all(self) -> None:
        for node in self.nodes:
            self._running.enter_context(node)
        self._join()

    # --- what tests do to it -------------------------------------------------------------------------------------

    def client(self) -> redis.RedisCluster:
        """A client of the whole cluster."""
        node = next(node for node in self.nodes if node.running)
        return redis.RedisCluster(host=HOST, port=node.port)

    def owner(self, slot: int) -> ClusterNode:
        """The running node that has the slot."""
        by_port = {node.port: node for node in self.nodes}
        asked = next(node for node in self.nodes if node.running)
        for first, last, (_, port, *_), *_rest in asked.call("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return by_port[port]
        raise EmbeddedServerError(f"slot {slot} has no owner")

    def owner_of(self, key: str) -> ClusterNode:
        """The running node that has the key's slot."""
        return self.owner(key_slot(key.encode()))

    def begin_move(self, slot: int, target: ClusterNode) -> None:
        """Has the slot's owner send clients to the target for keys that it no longer has."""
        source = self.owner(slot)
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.node_id)
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.node_id)

    def move_keys(self, slot: int, target: ClusterNode, count: int = 10_000) -> int:
        """Takes keys of the slot to the target. Returns how many."""
        source = self.owner(slot)
        keys = source.call("CLUSTER", "GETKEYSINSLOT", slot, count)
        if keys:
            source.call("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def finish_move(self, slot: int, target: ClusterNode) -> None:
        """Makes the target the slot's owner."""
        self.move_keys(slot, target)
        for node in (target, *self.masters):
            # A replica refuses, and hears of it.
            with suppress(redis.ResponseError):
                node.call("CLUSTER", "SETSLOT", slot, "NODE", target.node_id)

    def move(self, slot: int, target: ClusterNode) -> None:
        """Moves a slot with its keys."""
        self.begin_move(slot, target)
        self.finish_move(slot, target)

    def await_successor(self, slot: int) -> None:
        """Returns when a running node has the slot, and all know it."""
        self._wait(lambda: self.owner(slot).running and self._complete(), "replace a master")

    def heal(self) -> None:
        """Starts the nodes that were killed, and returns when all agree and every master has its replicas."""
        for node in self.nodes:
            if not node.running:
                node.restart()
        self._wait(lambda: self._complete() and self._replicated(), "heal")

    # --- inside --------------------------------------------------------------------------------------------------

    def _join(self) -> None:
        share = -(-_SLOTS // len(self.masters))
        for number, node in enumerate(self.nodes):
            node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.call("CLUSTER", "MEET", HOST, self.masters[0].port)
        for number, node in enumerate(self.masters):
            node.call("CLUSTER", "ADDSLOTS", *range(number * share, min(_SLOTS, (number + 1) * share)))
        self._wait(lambda: all(self._knows_all(node) for node in self.nodes), "meet")
        for number, node in enumerate(self.replicas):
            node.call("CLUSTER", "REPLICATE", self.masters[number % len(self.masters)].node_id)
        self._wait(self._complete, "agree")
        self._wait(self._replicated, "replicate")

    def _knows_all(self, node: ClusterNode) -> bool:
        return len(node.call("CLUSTER", "NODES").splitlines()) == len(self.nodes)

    def _complete(self) -> bool:
        views = set()
        for node in (node for node in self.nodes if node.running):
            if b"cluster_state:ok" not in node.call("CLUSTER", "INFO"):
                return False
            owners = sorted((first, last, master[1]) for first, last, master, *_ in node.call("CLUSTER", "SLOTS"))
            views.add(tuple(owners))
        return len(views) == 1

    def _replicated(self) -> bool:
        """Whether as many nodes as there should be are replicas, and in step."""
        states = [node.call("INFO", "REPLICATION") for node in self.nodes]
        replicas = [state for state in states if state["role"] == "slave"]
        return len(replicas) == len(self.replicas) and all(s["master_link_status"] == "up" for s in replicas)

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self._timeout_seconds
        while not self._holds(done):
            if time.monotonic() > deadline:
                raise EmbeddedServerError(f"the cluster did not {what} within {self._timeout_seconds:g} s")
            time.sleep(_POLL_SECONDS)

    @staticmethod
    def _holds(done: Callable[[], bool]) -> bool:
        try:
            return done()
        except (redis.RedisError, EmbeddedServerError):
            return False
