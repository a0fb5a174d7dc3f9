"""Progress without a terminal: a line when a step is done."""

from __future__ import annotations

import time

from rich.console import Console


class Lines:
    """Implements :class:`job.steps.progress.Progress` for logs.

    Args:
        console: where the lines go.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._step = ""
        self._started = 0.0

    def start(self, step: str, total: int | None = None) -> None:
        """A step begins."""
        self._step, self._started = step, time.monotonic()

    def advance(self, count: int) -> None:
        """Says nothing: a log is no place for a bar."""

    def finish(self, result: str) -> None:
        """The step is done."""
        seconds = time.monotonic() - self._started
        self._console.print(f"  {self._step}: {result} ({seconds:.1f} s)", markup=False, highlight=False)
