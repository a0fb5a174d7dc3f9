"""Measures whether others write to the database server; while they do, transactions are made shorter."""

from __future__ import annotations

import time
from collections.abc import Callable

from stores.sql.connection.run_connection import RunConnection
from stores.waiting.pacing import TARGET_SECONDS, target_seconds

_MEASURE_SECONDS = 0.5
# In less time than this, the count says nothing.
_LEAST_SECONDS = 0.02


class ConcurrentWriters:
    """Measures twice a second how much others write to the same server, whoever they are.

    Args:
        connection: the connection.
        own: how many of the transactions on it have written so far.
        enabled: False where they are workers of the same run: a policy asks for several to be done sooner.
        time: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        connection: RunConnection,
        own: Callable[[], int],
        *,
        enabled: bool = True,
        time: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._own = own
        self._enabled = enabled
        self._time = time
        self._last: tuple[float, int] | None = None
        self._target = TARGET_SECONDS

    @property
    def are_busy(self) -> bool:
        """Whether they wrote much when it was last measured."""
        return self._target < TARGET_SECONDS

    def target_seconds(self) -> float:
        """How long a transaction should take now.

        Raises:
            DatabaseUnavailableError, LockLostError: as any transaction.
        """
        if self._enabled and (self._last is None or self._time() - self._last[0] >= _MEASURE_SECONDS):
            self.measure()
        return self._target

    def measure(self) -> None:
        """Measures how much they have written since the last time."""
        if not self._enabled:
            return
        own = self._own()
        written = self._connection.transaction(
            lambda connection: self._connection.dialect.written_by_others(connection, own)
        )
        if written is None:
            self._enabled = False  # this database does not count
            return
        now = self._time()
        if self._last is None:
            self._last = now, written
            return
        since, before = self._last
        if now - since >= _LEAST_SECONDS:
            self._target = target_seconds(written - before, now - since)
            self._last = now, written
