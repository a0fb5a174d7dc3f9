"""The API server's clock, taken from the Date header of its answers.

Jobs and CronJobs have the control plane's times. By a node's clock that is wrong, the controller would see runs in the
future, or runs that should have started long ago.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime


class ServerClock:
    """The time by the server's last answer; by this machine's clock until there is one.

    Args:
        local: this machine's clock.
        monotonic: seconds of a clock that nobody can change.
    """

    def __init__(
        self,
        local: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._local = local
        self._monotonic = monotonic
        self._read: tuple[datetime, float] | None = None

    def read(self, date: str) -> None:
        """Take the time from an answer's ``Date`` header; an invalid one is ignored."""
        try:
            sent = parsedate_to_datetime(date)
        except ValueError:
            return
        if sent.tzinfo is not None:
            self._read = (sent.astimezone(UTC), self._monotonic())

    def now(self) -> datetime:
        """The time there now, correct to about a second."""
        if self._read is None:
            return self._local()
        sent, received = self._read
        return sent + timedelta(seconds=self._monotonic() - received)
