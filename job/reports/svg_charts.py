"""Line, bar and row charts as inline SVG, with colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 560, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 12, 28
_TICKS = 4
# An axis treats smaller values as zero.
_ZERO = 1e-9
_CHARACTER_WIDTH, _LABEL_GAP = 7, 20
_STEPS = (1, 2, 5, 10)


@dataclass(frozen=True, slots=True)
class Series:
    """One line or one part of each bar.

    Attributes:
        name: for the legend.
        values: one for each label; None leaves a gap.
    """

    name: str
    values: Sequence[float | None]


def axis_maximum(most: float) -> float:
    """The next round number, so that the axis has round ticks."""
    if most < _ZERO or not math.isfinite(most):
        return float(_TICKS)
    step = most / _TICKS
    power = 10.0 ** math.floor(math.log10(step))
    factor = next(f for f in _STEPS if f * power >= step * (1 - 1e-9))
    return factor * power * _TICKS


def short_number(value: float) -> str:
    """A number for an axis: 950, 1.2k, 3M."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def line_chart(title: str, labels: Sequence[str], series: Sequence[Series]) -> str:
    """Lines over time; each point has its value as a tooltip."""
    top = axis_maximum(max((v for s in series for v in s.values if v is not None), default=0))
    parts = [_axes(labels, top, bars=False)]
    for number, one in enumerate(series, start=1):
        path, dots, gap = [], [], True
        for n, value in enumerate(one.values):
            if value is not None:
                x, y = _x(n, len(labels)), _y(value, top)
                path.append(f"{'M' if gap else 'L'}{x:.1f} {y:.1f}")
                tip = _tip(one.name, labels[n], value)
                # A point without neighbours is drawn as a dot.
                alone = "" if _has_neighbour(one.values, n) else " alone"
                dots.append(f'<circle class="dot c{number}{alone}" cx="{x:.1f}" cy="{y:.1f}" r="4">{tip}</circle>')
            gap = value is None
        parts += [f'<path class="line c{number}" d="{" ".join(path)}"/>', *dots]
    return _figure(title, series, parts)


def bar_chart(title: str, labels: Sequence[str], series: Sequence[Series]) -> str:
    """Vertical bars, stacked if there are several series."""
    totals = [sum(s.values[n] or 0 for s in series) for n in range(len(labels))]
    top = axis_maximum(max(totals, default=0))
    slot = (_WIDTH - _LEFT - _RIGHT) / max(1, len(labels))
    width = min(48.0, slot * 0.7)
    parts = [_axes(labels, top, bars=True)]
    for n, label in enumerate(labels):
        below = 0.0
        for number, one in enumerate(series, start=1):
            value = one.values[n] or 0
            if value:
                y, base = _y(below + value, top), _y(below, top)
                x = _LEFT + slot * (n + 0.5) - width / 2
                parts.append(
                    f'<rect class="bar c{number}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                    f'height="{max(0.5, base - y):.1f}">{_tip(one.name, label, value)}</rect>'
                )
            below += value
    return _figure(title, series, parts)


def row_chart(title: str, counts: Mapping[str, float]) -> str:
    """Horizontal bars with their names and values."""
    most = max(counts.values(), default=0) or 1
    row, name_width, value_width = 28, 120, 56
    room = _WIDTH - name_width - value_width
    parts = []
    for n, (name, value) in enumerate(counts.items()):
        y, width = n * row, max(1.0, value / most * room)
        parts.append(
            f'<text class="label" x="{name_width - 8}" y="{y + 17}" text-anchor="end">{escape(_cut(name))}</text>'
            f'<rect class="bar c1" x="{name_width}" y="{y + 4}" width="{width:.1f}" height="{row - 8}" rx="2">'
            f"<title>{escape(name)}: {value:,.0f}</title></rect>"
            f'<text class="label" x="{name_width + width + 6:.1f}" y="{y + 17}">{short_number(value)}</text>'
        )
    return _figure(title, (), parts, height=max(row, row * len(counts)))


def _figure(title: str, series: Sequence[Series], parts: Sequence[str], height: int = _HEIGHT) -> str:
    legend = ""
    if len(series) > 1:
        keys = "".join(f'<span><i class="k{n}"></i>{escape(one.name)}</span>' for n, one in enumerate(series, start=1))
        legend = f'<p class="legend">{keys}</p>'
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>{legend}"
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )


def _axes(labels: Sequence[str], top: float, *, bars: bool) -> str:
    parts = []
    for n in range(_TICKS + 1):
        value = top * n / _TICKS
        y = _y(value, top)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="label" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short_number(value)}</text>'
        )
    slot = (_WIDTH - _LEFT - _RIGHT) / max(1, len(labels))
    wanted = max((len(label) for label in labels), default=0) * _CHARACTER_WIDTH + _LABEL_GAP
    every = max(1, math.ceil(len(labels) * wanted / (_WIDTH - _LEFT - _RIGHT)))
    for n in range(0, len(labels), every):
        x = _LEFT + slot * (n + 0.5) if bars else _x(n, len(labels))
        # A label at the right edge must not be cut off.
        anchor = "end" if x + wanted / 2 > _WIDTH and not bars else "middle"
        parts.append(
            f'<text class="label" x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{escape(labels[n])}</text>'
        )
    return "".join(parts)


def _has_neighbour(values: Sequence[float | None], n: int) -> bool:
    return any(0 <= m < len(values) and values[m] is not None for m in (n - 1, n + 1))


def _x(number: int, count: int) -> float:
    room = _WIDTH - _LEFT - _RIGHT
    return _LEFT + (room * number / (count - 1) if count > 1 else room / 2)


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / top


def _tip(name: str, label: str, value: float) -> str:
    return f"<title>{escape(label)}, {escape(name)}: {value:,.4g}</title>"


def _cut(name: str, limit: int = 22) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"
