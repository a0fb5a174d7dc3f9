"""Retries as the policy says, within the deadline of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from policy.spec import Retry
from stores.waiting.clock import RunClock

T = TypeVar("T")


class Retrier:
    """Calls a function again after certain errors.

    Args:
        policy: how often and after which pause.
        errors: the errors after which another attempt makes sense.
        clock: pauses end early, with StopRequestedError, when the run has to stop.
        log: gets a warning for each attempt that failed.
        what: what is being tried, for the log.
    """

    def __init__(
        self, policy: Retry, errors: tuple[type[BaseException], ...], clock: RunClock, log: Any, what: str
    ) -> None:
        self._policy = policy
        self._log = log
        self._what = what
        # Made once: what it keeps of a call it keeps for each thread, and making it takes as long as a short command.
        self._retrying = Retrying(
            stop=stop_after_attempt(policy.attempts + 1),
            wait=wait_fixed(policy.delay_seconds),
            retry=retry_if_exception_type(errors),
            sleep=clock.wait,
            before_sleep=self._warn,
            reraise=True,
        )

    def __call__(self, function: Callable[[], T]) -> T:
        """The function's result.

        Raises:
            One of the errors, unchanged, when the attempts are used up.
        """
        return self._retrying(function)

    def _warn(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._log.warning(
            "retry",
            what=self._what,
            attempt=state.attempt_number,
            of=self._policy.attempts + 1,
            delaySeconds=self._policy.delay_seconds,
            # The error's text may quote data; its type does not.
            error=type(error).__name__,
        )
