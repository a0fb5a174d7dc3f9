"""Several servers that belong together: started as one, stopped as one."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import ExitStack
from typing import Self

from job.demo.servers.process import Startable


class EmbeddedServers(Startable):
    """A group of servers; those that are entered into ``_running`` end with it."""

    def __init__(self) -> None:
        self._running = ExitStack()

    def start(self) -> Self:
        """Start all and join them.

        Raises:
            EmbeddedServerUnavailable: There is no program for one of them.
            EmbeddedServerError: One ended, or they did not find each other in time.
        """
        try:
            self._start_all()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all."""
        self._running.close()

    @abstractmethod
    def _start_all(self) -> None:
        """Start each within ``_running``, and wait until they work together."""
