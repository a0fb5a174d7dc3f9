"""Whether others write to the database just now: then transactions are made shorter."""

from __future__ import annotations

import time
from collections.abc import Callable

from stores.sql.connection.run_connection import RunConnection
from stores.waiting.pacing import TARGET_SECONDS, target_seconds

_LOOK_AGAIN_SECONDS = 0.5
# In less time than this, nobody can be told from nobody.
_LEAST_SECONDS = 0.02


class ConcurrentWriters:
    """Those who write to the same server, whoever they are. Only how much they write is looked at, twice a second.

    Args:
        connection: the connection.
        own: how many of the transactions on it have written so far.
        looks: False where others are the workers of the same run: who has several of them wants to be done soon.
        time: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        connection: RunConnection,
        own: Callable[[], int],
        *,
        looks: bool = True,
        time: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._own = own
        self._looks = looks
        self._time = time
        self._seen: tuple[float, int] | None = None
        self._target = TARGET_SECONDS

    @property
    def are_busy(self) -> bool:
        """Whether they wrote much at the last look."""
        return self._target < TARGET_SECONDS

    def target_seconds(self) -> float:
        """How long a transaction should take now.

        Raises:
            DatabaseUnavailableError, LockLostError: as any transaction.
        """
        if self._looks and (self._seen is None or self._time() - self._seen[0] >= _LOOK_AGAIN_SECONDS):
            self.look()
        return self._target

    def look(self) -> None:
        """Looks how much they have written since the last look."""
        if not self._looks:
            return
        own = self._own()
        written = self._connection.transaction(
            lambda connection: self._connection.dialect.written_by_others(connection, own)
        )
        if written is None:
            self._looks = False  # nobody can tell here, now or later
            return
        now = self._time()
        if self._seen is None:
            self._seen = now, written
            return
        since, before = self._seen
        if now - since >= _LEAST_SECONDS:
            self._target = target_seconds(written - before, now - since)
            self._seen = now, written
