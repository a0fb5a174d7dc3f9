"""Embedded servers that a test may kill and restart: on the same port, with the same data."""

from __future__ import annotations

from typing import Self

import psutil

from job.demo.servers import EmbeddedPostgres, EmbeddedRedis
from job.demo.servers.process import EmbeddedServer
from tests.support.ports import free_port


class RestartableServer(EmbeddedServer):
    """A server that keeps its port and its data until `stop`."""

    _known_port: int | None = None

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        super().start()
        self._known_port = self.port  # clients know it
        return self

    def kill(self) -> None:
        """End the server as a crash would: SIGKILL to it and all its children, nothing flushed, data kept."""
        if self._process is None:
            return
        try:
            family = [psutil.Process(self._process.pid)]
            family += family[0].children(recursive=True)
        except psutil.NoSuchProcess:
            family = []
        for member in family:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family[1:], timeout=10)
        self._process.wait()
        self._end()

    def restart(self) -> Self:
        """Stop the server cleanly if it runs, and start it again on the same port and data.

        Raises:
            EmbeddedServerError: As `start`.
        """
        self._end()
        return self.start()

    def _choose_port(self) -> int:
        return self._known_port or free_port()


class RestartablePostgres(RestartableServer, EmbeddedPostgres):
    """An embedded PostgreSQL that a test may kill and restart."""


class RestartableRedis(RestartableServer, EmbeddedRedis):
    """An embedded Valkey or Redis that a test may kill and restart."""
