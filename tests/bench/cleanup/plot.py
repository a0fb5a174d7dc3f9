"""What was found, as one page of plots: an SVG that needs nothing but a browser."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from tests.bench.cleanup.goals import OURS, Check, Curve, Row, Verdict, count, quantity
from tests.bench.cleanup.part import Outcome
from tests.bench.figures import Figure
from tools.pictures.svg import COLOURS, FAINT, INK, box, cut, document, line, path, text

_WIDTH, _MARGIN, _LINE = 1180.0, 24.0, 20.0
_NAMES, _BARS, _MOST_USED = 560.0, 420.0, 4.0
_FILL = {Verdict.MET: "#2e9f6b", Verdict.MISSED: "#c0392b", Verdict.NOT_MEASURED: "#9aa1ad"}
_COLUMNS = 2
_BAR_NAME, _CURVE_HEIGHT = 250.0, 150.0

Drawn = tuple[float, list[str]]
"""How high something is, and its parts."""


def page(outcomes: Sequence[Outcome], about: Mapping[str, str]) -> str:
    """The whole page."""
    rows = [row for outcome in outcomes for row in outcome.rows]
    parts = [text(_MARGIN, 36, "Cleanup run: how much of what each goal allows is used", size=17, weight=600)]
    top, drawn = _goals(rows, 56)
    parts += drawn
    top = _cards(list(_card_drawers(rows)), top + 16, parts)
    for name, value in about.items():
        parts.append(text(_MARGIN, top + 14, cut(f"{name}: {value}", _WIDTH - 2 * _MARGIN, 11), fill=FAINT, size=11))
        top += 16
    return document(_WIDTH, top + 20, "Benchmark of the cleanup run", parts)


def _goals(rows: Sequence[Row], top: float) -> Drawn:
    """A bar for each check; the goal is the same line for all of them."""
    left, scale = _MARGIN + _NAMES, _BARS / _MOST_USED
    parts: list[str] = []
    y = top + 26
    for row in rows:
        colour = _FILL[row.verdict]
        parts.append(text(_MARGIN, y + 13, cut(row.goal.what, _NAMES - 10), weight=600))
        parts.append(text(_WIDTH - _MARGIN, y + 13, row.verdict, fill=colour, weight=600, end="end"))
        if row.unmeasured:
            parts.append(text(left, y + 13, cut(row.unmeasured, _BARS), fill=FAINT))
        y += _LINE
        for check in row.checks:
            width = min(check.used, _MOST_USED) * scale
            fill = _FILL[_alone(row, check)]
            parts.append(text(_MARGIN + 12, y + 13, cut(str(check), _NAMES - 22), fill=FAINT))
            parts.append(box(left, y + 3, width, 12, fill=fill, stroke=fill))
            parts.append(text(left + width + 6, y + 13, _share(check), fill=FAINT, size=11))
            y += _LINE
        y += 6
    at = left + scale
    parts.append(line(at, top + 20, at, y, stroke=INK, dash="4 3"))
    parts.append(text(at, top + 14, "goal", size=11, end="middle"))
    return y, parts


def _alone(row: Row, check: Check) -> Verdict:
    """What the row's verdict would be, if there were no other check."""
    return replace(row, checks=(check,)).verdict


def _share(check: Check) -> str:
    return f"{check.used:.0%}" if math.isfinite(check.used) else "without end"


def _card_drawers(rows: Sequence[Row]) -> Iterator[Callable[[float, float, float], Drawn]]:
    for row in rows:
        for figures in comparable(row.figures):
            yield partial(_bars, row.goal.what, figures)
        for curve in row.curves:
            yield partial(_curve, curve)


def comparable(figures: Sequence[Figure]) -> list[list[Figure]]:
    """The figures of each unit, where there is more than one."""
    by_unit: defaultdict[str, list[Figure]] = defaultdict(list)
    for figure in figures:
        by_unit[figure.unit].append(figure)
    return [group for group in by_unit.values() if len(group) > 1]


def _cards(drawers: Sequence[Callable[[float, float, float], Drawn]], top: float, parts: list[str]) -> float:
    """Cards in columns, each where there is most room. Returns where they end."""
    width = (_WIDTH - (_COLUMNS + 1) * _MARGIN) / _COLUMNS
    ends = [top] * _COLUMNS
    for draw in drawers:
        column = ends.index(min(ends))
        x, y = _MARGIN + column * (width + _MARGIN), ends[column]
        height, drawn = draw(x + 12, y + 10, width - 24)
        parts.append(box(x, y, width, height + 20))
        parts += drawn
        ends[column] = y + height + 20 + 14
    return max(ends)


def _bars(title: str, figures: Sequence[Figure], x: float, y: float, width: float) -> Drawn:
    most = max(figure.value for figure in figures) or 1.0
    parts = [text(x, y + 12, cut(f"{title} ({figures[0].unit})", width, 13), size=13, weight=600)]
    at = y + 22
    for figure in figures:
        bar = (width - _BAR_NAME - 80) * figure.value / most
        colour = COLOURS[0] if OURS in figure.what else COLOURS[1]
        parts.append(text(x, at + 13, cut(figure.what, _BAR_NAME - 8), fill=FAINT))
        parts.append(box(x + _BAR_NAME, at + 3, bar, 12, fill=colour, stroke=colour))
        parts.append(text(x + _BAR_NAME + bar + 6, at + 13, quantity(figure.value, ""), size=11))
        at += _LINE
    return at - y, parts


def _curve(curve: Curve, x: float, y: float, width: float) -> Drawn:
    most_x = max(number for number, _ in curve.points)
    most_y = max(value for _, value in curve.points) or 1.0
    left, bottom, room = x + 50, y + _CURVE_HEIGHT, width - 90
    places = [(left + room * n / most_x, bottom - (_CURVE_HEIGHT - 45) * v / most_y) for n, v in curve.points]
    parts = [text(x, y + 12, cut(f"{curve.title} ({curve.unit})", width, 13), size=13, weight=600)]
    parts += [line(left, bottom, left + room, bottom), line(left, y + 30, left, bottom)]
    parts.append(path(places, stroke=COLOURS[0]))
    for (px, py), (number, value) in zip(places, curve.points, strict=True):
        parts.append(box(px - 2.5, py - 2.5, 5, 5, fill=COLOURS[0], stroke=COLOURS[0]))
        parts.append(text(px, py - 8, quantity(value, ""), size=11, end="middle"))
        parts.append(text(px, bottom + 15, count(number), fill=FAINT, size=11, end="middle"))
    return _CURVE_HEIGHT + 18, parts
