"""An embedded Redis master with a replica, and the sentinels that watch them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from job.demo.servers.errors import EmbeddedServerError
from job.demo.servers.process import HOST
from job.demo.servers.redis import server_program
from tests.support.servers.restartable import RestartableRedis, RestartableServer
from tests.support.servers.server_group import ServerGroup

MASTER_NAME = "sessions"
_POLL_SECONDS = 0.05
_OPTIONS = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}


class Sentinel(RestartableServer):
    """One sentinel.

    Args:
        master: What it watches.
        quorum: How many sentinels must agree that the master is dead.
        password: What it asks clients for; none if empty.
        master_password: What it logs in to the servers with; none if empty.
        start_timeout_seconds: How long it may take until it answers.
    """

    def __init__(
        self,
        master: RestartableRedis,
        quorum: int,
        password: str = "",
        master_password: str = "",
        start_timeout_seconds: float = 30,
    ) -> None:
        super().__init__("sentinel", None, start_timeout_seconds)
        self._master = master
        self._quorum = quorum
        self._password = password
        self._master_password = master_password
        self._program: Path | None = None

    @property
    def url(self) -> str:
        """URL of the sentinel itself."""
        return f"redis://{HOST}:{self.port}"

    def call(self, *command: Any) -> Any:
        """The reply to one command."""
        with redis.Redis(host=HOST, port=self.port, password=self._password or None) as client:
            return client.execute_command(*command)

    def _prepare(self) -> None:
        self._program = server_program()
        self.data_dir.mkdir(parents=True, exist_ok=True)

    def _command(self, port: int) -> list[str]:
        assert self._program is not None
        configuration = self.data_dir / "sentinel.conf"  # it writes there what it learns
        if not configuration.exists():
            configuration.write_text(self._configuration(port))
        return [str(self._program), str(configuration), "--sentinel"]

    def _configuration(self, port: int) -> str:
        lines = [
            f"bind {HOST}",
            f"port {port}",
            f"dir {self.data_dir}",
            f"sentinel monitor {MASTER_NAME} {HOST} {self._master.port} {self._quorum}",
            f"sentinel down-after-milliseconds {MASTER_NAME} 1000",
            f"sentinel failover-timeout {MASTER_NAME} 1500",
        ]
        if self._password:
            lines += [f"requirepass {self._password}", f"sentinel sentinel-pass {self._password}"]
        if self._master_password:
            lines.append(f"sentinel auth-pass {MASTER_NAME} {self._master_password}")
        return "\n".join(lines) + "\n"

    def _is_ready(self, port: int, pid: int) -> bool:
        del pid
        try:
            with socket.create_connection((HOST, port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


class EmbeddedRedisSentinels(ServerGroup):
    """A master, a replica and three sentinels.

    Args:
        password: Of the two servers; none if empty.
        sentinel_password: Of the sentinels; none if empty.
        timeout_seconds: How long it may take until they know each other, or until a replica has taken over.
    """

    def __init__(self, password: str = "", sentinel_password: str = "", timeout_seconds: float = 40) -> None:
        self.servers = [RestartableRedis(options=_OPTIONS), RestartableRedis(options=_OPTIONS)]
        self.sentinels = [Sentinel(self.servers[0], 2, sentinel_password, password) for _ in range(3)]
        self._password = password
        self._sentinel_password = sentinel_password
        self._timeout_seconds = timeout_seconds
        super().__init__()

    @property
    def url(self) -> str:
        """URL that names the sentinels, with the passwords."""
        login = f":{self._password}@" if self._password else ""
        options = f"?sentinel_password={self._sentinel_password}" if self._sentinel_password else ""
        return f"redis://{login}" + ",".join(f"{HOST}:{s.port}" for s in self.sentinels) + f"/0{options}"

    @property
    def master(self) -> RestartableRedis:
        """The server that the sentinels call the master."""
        sentinel = next(s for s in self.sentinels if s.running)
        _, port = sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)
        return next(server for server in self.servers if server.port == int(port))

    def _start_all(self) -> None:
        for server in self.servers:
            self._running.enter_context(server)
        self._replicate()
        for sentinel in self.sentinels:
            self._running.enter_context(sentinel)
        self._wait(self._ready, "find each other")

    # --- what tests do to them -----------------------------------------------------------------------------------

    def client(self, server: RestartableRedis | None = None) -> redis.Redis:
        """A client of a server, by default of the master."""
        return redis.Redis(host=HOST, port=(server or self.master).port, password=self._password or None)

    def fail_over(self) -> None:
        """Has the sentinels make the replica the master; it takes them a moment."""
        # They refuse until they have heard that the replica is fit.
        self._wait(lambda: bool(self.sentinels[0].call("SENTINEL", "FAILOVER", MASTER_NAME)), "begin a failover")

    def await_new_master(self, old: RestartableRedis) -> None:
        """Returns when the other server is the master, all sentinels say so, and the old one takes no more writes."""
        new = next(server for server in self.servers if server is not old)
        self._wait(lambda: self._all_name(new), "replace the master")
        if old.running:
            # The sentinels would tell it the same, some ten seconds later.
            self._follow(old, new)

    def heal(self) -> None:
        """Starts the servers that were killed, and returns when there is a master with a replica again."""
        master = self.master
        for server in self.servers:
            if not server.running:
                server.restart()
                self._passwords(server)
            if server is not master:
                # The sentinels would tell it the same, some ten seconds later.
                self._follow(server, master)
        self._wait(self._ready, "heal")

    # --- inside --------------------------------------------------------------------------------------------------

    def _replicate(self) -> None:
        master, replica = self.servers
        for server in self.servers:
            self._passwords(server)
        self._follow(replica, master)

    def _follow(self, replica: RestartableRedis, master: RestartableRedis) -> None:
        with self.client(replica) as client:
            client.replicaof(HOST, str(master.port))
        self._wait(lambda: self._replication(replica).get("master_link_status") == "up", "replicate")

    def _passwords(self, server: RestartableRedis) -> None:
        if not self._password:
            return
        with redis.Redis(host=HOST, port=server.port) as client:
            client.config_set("masterauth", self._password)
            client.config_set("requirepass", self._password)

    def _ready(self) -> bool:
        for sentinel in self.sentinels:
            state = _fields(sentinel.call("SENTINEL", "MASTER", MASTER_NAME))
            replicas = [_fields(reply) for reply in sentinel.call("SENTINEL", "REPLICAS", MASTER_NAME)]
            if (state["flags"], state["num-other-sentinels"], len(replicas)) != ("master", "2", 1):
                return False
            if replicas[0]["flags"] != "slave":
                return False
        return True

    def _all_name(self, server: RestartableRedis) -> bool:
        for sentinel in self.sentinels:
            _, port = sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)
            if int(port) != server.port:
                return False
        return bool(self._replication(server)["role"] == "master")

    def _replication(self, server: RestartableRedis) -> dict[str, Any]:
        with self.client(server) as client:
            state: dict[str, Any] = client.info("replication")
            return state

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self._timeout_seconds
        while not self._holds(done):
            if time.monotonic() > deadline:
                raise EmbeddedServerError(f"the servers did not {what} within {self._timeout_seconds:g} s")
            time.sleep(_POLL_SECONDS)

    @staticmethod
    def _holds(done: Callable[[], bool]) -> bool:
        try:
            return done()
        except redis.RedisError:
            return False


def _fields(reply: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in reply.items()}
