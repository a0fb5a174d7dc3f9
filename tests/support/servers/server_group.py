"""Several servers that belong together: started as one, stopped as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from types import TracebackType
from typing import Self


class ServerGroup(ABC):
    """A group of servers; those that are entered into ``_running`` end with it."""

    def __init__(self) -> None:
        self._running = ExitStack()

    def __enter__(self) -> Self:
        """Start all and join them.

        Raises:
            EmbeddedServerUnavailable: There is no program for one of them.
            EmbeddedServerError: One ended, or they did not find each other in time.
        """
        try:
            self._start_all()
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    @abstractmethod
    def _start_all(self) -> None:
        """Start each within ``_running``, and wait until they work together."""
