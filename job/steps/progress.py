"""Progress of a run, as someone watching a terminal sees it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What steps tell of their progress."""

    def start(self, step: str, total: int | None = None) -> None:
        """A step begins; total is how many sessions it will look at, where that is known."""

    def advance(self, count: int) -> None:
        """So many more sessions are done."""

    def finish(self, result: str) -> None:
        """The step is done; result is one short phrase with its counts."""


class Silent:
    """No terminal, no progress."""

    def start(self, step: str, total: int | None = None) -> None:
        """Says nothing."""

    def advance(self, count: int) -> None:
        """Says nothing."""

    def finish(self, result: str) -> None:
        """Says nothing."""
