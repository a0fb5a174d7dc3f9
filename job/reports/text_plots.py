"""Sparklines and bars of characters, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean

_LEVELS = "▁▂▃▄▅▆▇█"
_PLAIN_LEVELS = "_.-=+*#@"


def condense(values: Sequence[float | None], width: int) -> list[float | None]:
    """At most ``width`` values, each the average of neighbouring ones; None if all of those are None."""
    if len(values) <= width:
        return list(values)
    bounds = [n * len(values) // width for n in range(width + 1)]
    shares = [[v for v in values[a:b] if v is not None] for a, b in pairwise(bounds)]
    return [fmean(share) if share else None for share in shares]


def sparkline(values: Sequence[float | None], width: int = 60, *, plain: bool = False) -> str:
    """The values as a line of block characters, on a scale that starts at zero.

    Args:
        values: oldest first; None leaves a gap.
        width: most characters.
        plain: ASCII instead of block characters.
    """
    levels = _PLAIN_LEVELS if plain else _LEVELS
    condensed = condense(values, width)
    most = max((v for v in condensed if v is not None), default=0.0)
    return "".join(
        " " if v is None else levels[min(len(levels) - 1, int(v / most * len(levels)))] if most > 0 else levels[0]
        for v in condensed
    )


def bars(counts: Mapping[str, int], width: int = 40, *, plain: bool = False) -> list[tuple[str, int, str]]:
    """Name, count and bar of each; the longest bar has the full width."""
    most = max(counts.values(), default=0)
    block = "#" if plain else "█"
    return [(name, count, block * (round(count / most * width) if most else 0)) for name, count in counts.items()]
