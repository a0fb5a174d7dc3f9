"""Time within a run: the deadline, the request to stop, and waiting that heeds both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from job.errors import StopRequestedError

_MARGIN_SHARE = 0.1
_MIN_MARGIN_SECONDS = 3.0
_MAX_MARGIN_SECONDS = 60.0
# After a request to stop, the statement that is running gets this long. Kubernetes kills a Pod 30 s after the request.
_STOP_GRACE_SECONDS = 10.0
_INTERRUPT_AGAIN_SECONDS = 1.0


class RunClock:
    """Tells a run when to stop.

    The run's own deadline lies a little before the Pod's, so that it ends in good order and its report is kept.
    """

    def __init__(self, timeout_seconds: float) -> None:
        margin = min(max(timeout_seconds * _MARGIN_SHARE, _MIN_MARGIN_SECONDS), _MAX_MARGIN_SECONDS)
        self._started = time.monotonic()
        self._deadline = self._started + timeout_seconds - margin
        self._stop = threading.Event()

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started

    def request_stop(self) -> None:
        """Asks the run to stop before its next batch. Safe to call from a signal handler."""
        # By another thread: the handler may have interrupted this one while it holds the lock within the event.
        threading.Thread(target=self._stop.set, name="stop", daemon=True).start()

    def checkpoint(self) -> None:
        """Called before every batch and every wait.

        Raises:
            StopRequestedError: the run has to stop.
        """
        if self._stop.is_set():
            raise StopRequestedError("Interrupted")
        if time.monotonic() >= self._deadline:
            raise StopRequestedError("DeadlineReached")

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
