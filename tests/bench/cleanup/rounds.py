"""Measuring several ways of doing the same, so that none has the quieter machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import TypeVar

T = TypeVar("T")


def alternate(rounds: int, ways: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Has each of them done once a round: A B, B A, A B.

    Every second round goes backwards, for what one way leaves to be written to disk may slow down the next: else a way
    would always come after the same other.

    Args:
        rounds: how often.
        ways: by name; each makes its own preparations, and returns what it measured.
    """
    found: dict[str, list[T]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in reversed(list(ways)) if number % 2 else ways:
            found[name].append(ways[name]())
    return found


def medians(found: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each."""
    return {name: median(values) for name, values in found.items()}


def spread(values: list[float]) -> str:
    """The least and the greatest, for those who want to know how noisy it was."""
    return f"{min(values):.3g} to {max(values):.3g}"
