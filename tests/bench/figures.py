"""What a benchmark found, and how it is printed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity.

    Attributes:
        what: what was measured.
        value: the figure, with its unit in `unit`.
        unit: s, ms, MiB, requests ...
        yardstick: the same work done by the barest means in the same run, in the same unit; None if there is none.
        yardstick_is: what that bare means is.
        note: what a reader has to know besides.
    """

    what: str
    value: float
    unit: str
    yardstick: float | None = None
    yardstick_is: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The figure as a multiple of its yardstick."""
        return self.value / self.yardstick if self.yardstick else None


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies (nearest rank).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def table(figures: Iterable[Figure]) -> str:
    """The figures as a Markdown table, which is also readable on a terminal."""
    rows = [("what", "figure", "bare", "ratio", "")]
    for figure in figures:
        bare = f"{figure.yardstick:.4g} {figure.unit}" if figure.yardstick is not None else ""
        ratio = f"{figure.ratio:.2f}" if figure.ratio is not None else ""
        notes = "; ".join(part for part in (figure.yardstick_is, figure.note) if part)
        rows.append((figure.what, f"{figure.value:.4g} {figure.unit}", bare, ratio, notes))
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, which is also readable on a terminal; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def save(figures: Iterable[Figure], path: Path) -> None:
    """Write the figures as JSON."""
    path.write_text(json.dumps([asdict(figure) | {"ratio": figure.ratio} for figure in figures], indent=2) + "\n")
