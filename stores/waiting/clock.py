"""The clock of a run: its deadline, a request to stop, and pauses that end early for either."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from stores.model.errors import StopRequestedError

_MARGIN_SHARE = 0.1
_MIN_MARGIN_SECONDS = 3.0
_MAX_MARGIN_SECONDS = 60.0
# After a request to stop, the statement that is running gets this long. Kubernetes kills a Pod 30 s after the request.
_STOP_GRACE_SECONDS = 10.0
_INTERRUPT_AGAIN_SECONDS = 1.0
# A run that should have stopped gets this share of the margin to end by itself; the rest is for the report. Likewise
# after a request to stop.
_ENDING_SHARE = 0.5
_STOP_ENDING_SECONDS = 20.0
_CHECK_SECONDS = 0.5


class RunClock:
    """Deadline and stop requests of a run.

    The run's own deadline lies a little before the Pod's, so that it ends in good order and its report is kept.
    """

    def __init__(self, timeout_seconds: float) -> None:
        margin = min(max(timeout_seconds * _MARGIN_SHARE, _MIN_MARGIN_SECONDS), _MAX_MARGIN_SECONDS)
        self._started = time.monotonic()
        self._deadline = self._started + timeout_seconds - margin
        self._ending_seconds = margin * _ENDING_SHARE
        self._stop = threading.Event()
        self._stop_requested = 0.0

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started

    def request_stop(self) -> None:
        """Asks the run to stop before its next batch. Safe to call from a signal handler."""
        # By another thread: the handler may have interrupted this one while it holds the lock within the event.
        threading.Thread(target=self._request, name="stop", daemon=True).start()

    def _request(self) -> None:
        self._stop_requested = self._stop_requested or time.monotonic()
        self._stop.set()

    def checkpoint(self) -> None:
        """Called before every batch and every wait.

        Raises:
            StopRequestedError: the run has to stop.
        """
        if reason := self.why_to_stop():
            raise StopRequestedError(reason)

    def why_to_stop(self) -> str | None:
        """Why the run has to stop now, as its report says it; None if it may go on."""
        if self._stop.is_set():
            return "Interrupted"
        return "DeadlineReached" if time.monotonic() >= self._deadline else None

    def wait_for_end(self, ended: threading.Event) -> bool:
        """Waits for the run to end, but no longer than leaves time for its report.

        Returns whether it has ended. If not, it hangs in something that nothing could interrupt.
        """
        while not ended.wait(min(_CHECK_SECONDS, max(0.0, self._seconds_left_to_end()))):
            if self._seconds_left_to_end() <= 0:
                return ended.is_set()
        return True

    def _seconds_left_to_end(self) -> float:
        until = self._deadline + self._ending_seconds
        if self._stop.is_set():
            until = min(until, self._stop_requested + _STOP_ENDING_SECONDS)
        return until - time.monotonic()

    def when_overdue(self, interrupt: Callable[[], bool]) -> None:
        """Has interrupt called, from another thread, if the run is still at work when it should have stopped.

        A checkpoint cannot end a statement that takes minutes; cancelling it can. Until interrupt returns False it is
        called again: the first call may have come just before such a statement.
        """

        def watch() -> None:
            if self._stop.wait(max(0.0, self._deadline - time.monotonic())):
                time.sleep(min(_STOP_GRACE_SECONDS, max(0.0, self._deadline - time.monotonic())))
            while interrupt():
                time.sleep(_INTERRUPT_AGAIN_SECONDS)

        threading.Thread(target=watch, name="deadline", daemon=True).start()

    def wait(self, seconds: float) -> None:
        """Waits, but not past the deadline nor a request to stop.

        Raises:
            StopRequestedError: the run has to stop.
        """
        self.checkpoint()
        self._stop.wait(max(0.0, min(seconds, self._deadline - time.monotonic())))
        self.checkpoint()
