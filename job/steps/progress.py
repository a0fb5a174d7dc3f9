"""Progress of a run, for somebody at a terminal."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Takes from the steps how far they are."""

    def start(self, step: str, total: int | None = None) -> None:
        """A step begins; total is how many sessions it will look at, where that is known."""

    def advance(self, count: int) -> None:
        """So many more sessions are done."""

    def finish(self, result: str) -> None:
        """The step is done; result is one short phrase with its counts."""


class NoProgress:
    """Shows no progress."""

    def start(self, step: str, total: int | None = None) -> None:
        """Does nothing."""

    def advance(self, count: int) -> None:
        """Does nothing."""

    def finish(self, result: str) -> None:
        """Does nothing."""
