"""The dashboard as a picture: its own panels, in their places, with what its own queries yield."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.support.chart import CHART
from tools.pictures.prometheus import Found
from tools.pictures.svg import COLOURS, FAINT, INK, box, cut, document, line, path, text

Answers = dict[str, list[Found]]
"""What each query yields."""

COLUMN, ROW, GAP = 60, 26, 8
MOST_SERIES = 6
_TICKS = 4


def dashboard() -> dict[str, Any]:
    """The dashboard that the chart ships."""
    found: dict[str, Any] = json.loads((CHART / "files" / "dashboard.json").read_text())
    return found


def queries_of(found: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Each query as Grafana sends it with all policies chosen, with its panel."""
    for panel in found["panels"]:
        for target in panel.get("targets", []):
            yield panel, sent(target)


def sent(target: Mapping[str, Any]) -> str:
    """A query without its variables."""
    expression: str = target["expr"]
    for variable, value in (("$__rate_interval", "15s"), ("$namespace", ".*"), ("$policy", ".*")):
        expression = expression.replace(variable, value)
    return expression


def draw_dashboard(found: Mapping[str, Any], answers: Answers) -> str:
    """The whole picture."""
    parts: list[str] = []
    for panel in found["panels"]:
        place = panel["gridPos"]
        x, y = place["x"] * COLUMN + GAP, place["y"] * ROW + GAP
        width, height = place["w"] * COLUMN - GAP, place["h"] * ROW - GAP
        if panel["type"] == "row":
            parts.append(text(x, y + 15, panel["title"], size=14, weight=600))
            continue
        parts += [box(x, y, width, height), text(x + 10, y + 18, cut(panel["title"], width - 20, 13), weight=600)]
        draw = {"stat": _stat, "table": _table, "timeseries": _graph}[panel["type"]]
        parts += draw(panel, answers, x + 10, y + 24, width - 20, height - 30)
    bottom = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in found["panels"])
    return document(24 * COLUMN + GAP, bottom * ROW + GAP, f"Dashboard: {found['title']}", parts)


def _stat(panel: Mapping[str, Any], answers: Answers, x: float, y: float, width: float, height: float) -> list[str]:
    found = answers[sent(panel["targets"][0])]
    value = found[0].points[-1][1] if found else math.nan
    shown = "no data" if math.isnan(value) else f"{value:g}"
    return [text(x + width / 2, y + height / 2 + 14, shown, size=32, weight=600, fill=COLOURS[0], end="middle")]


def _table(panel: Mapping[str, Any], answers: Answers, x: float, y: float, width: float, height: float) -> list[str]:
    columns, rows = _cells(panel, answers)
    step = width / max(1, len(columns))
    parts = [text(x + n * step, y + 16, cut(name, step), fill=FAINT, weight=600) for n, name in enumerate(columns)]
    parts.append(line(x, y + 23, x + width, y + 23))
    for number, row in enumerate(rows):
        if (number + 2) * 22 < height:
            cells = (cut(row.get(name, ""), step - 6) for name in columns)
            parts += [text(x + n * step, y + 40 + number * 22, cell) for n, cell in enumerate(cells)]
    return parts


def _cells(panel: Mapping[str, Any], answers: Answers) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows, by the panel's own transformations."""
    options: Mapping[str, Any] = next(
        (t["options"] for t in panel.get("transformations", []) if t["id"] == "organize"), {}
    )
    names, hidden = options.get("renameByName", {}), options.get("excludeByName", {})
    units = {o["matcher"]["options"]: o["properties"] for o in panel["fieldConfig"]["overrides"]}
    labels: dict[str, None] = {}
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for target in panel["targets"]:
        field = f"Value #{target['refId']}" if len(panel["targets"]) > 1 else "Value"
        for series in answers[sent(target)]:
            own = {names.get(k, k): v for k, v in series.labels.items() if not hidden.get(k)}
            labels |= dict.fromkeys(own)
            key = (series.labels.get("namespace", ""), series.labels.get("policy", series.labels.get("pod", "")))
            row = rows.setdefault(key, {})
            row |= own
            if not hidden.get(field):
                column = names.get(field, field)
                moment, value = series.points[-1]
                row[column] = _shown(value, moment, units.get(column, []))
    values = [name for key, name in names.items() if key.startswith("Value")]
    return [*labels, *values], [rows[key] for key in sorted(rows)]


def _shown(value: float, now: float, properties: Sequence[Mapping[str, Any]]) -> str:
    settings = {p["id"]: p["value"] for p in properties}
    unit = settings.get("unit", "short")
    if unit == "dateTimeFromNow":
        seconds = value / 1000 - now
        shown = _amount(abs(seconds), "s")
        return f"in {shown}" if seconds > 0 else f"{shown} ago"
    if "decimals" in settings:
        return f"{value:.{settings['decimals']}f}"
    return _amount(value, unit)


@dataclass(frozen=True, slots=True)
class _Plot:
    """Where a graph's axes are, and what they stand for."""

    left: float
    right: float
    ceiling: float
    bottom: float
    first: float
    last: float
    top: float

    def x(self, moment: float) -> float:
        return self.left + (self.right - self.left) * (moment - self.first) / max(1.0, self.last - self.first)

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.ceiling) * value / self.top


def _graph(panel: Mapping[str, Any], answers: Answers, x: float, y: float, width: float, height: float) -> list[str]:
    lines = _lines(panel, answers)
    if not lines:
        return [text(x + width / 2, y + height / 2, "no data", fill=FAINT, end="middle")]
    shown, hidden = lines[:MOST_SERIES], lines[MOST_SERIES:]
    per_line = 2 if width > 300 else 1
    legend = math.ceil((len(shown) + bool(hidden)) / per_line) * 15
    plot = _Plot(
        left=x + 54,
        right=x + width,
        ceiling=y + 6,
        bottom=y + height - legend - 18,
        first=min(points[0][0] for _, points in lines),
        last=max(points[-1][0] for _, points in lines),
        top=max(v for _, points in lines for _, v in points) or 1.0,
    )
    dashed = [o["matcher"]["options"] for o in panel["fieldConfig"]["overrides"]]
    parts = _axes(plot, panel["fieldConfig"]["defaults"]["unit"])
    for number, (name, points) in enumerate(shown):
        colour = COLOURS[number % len(COLOURS)]
        dash = "6 4" if any(re.fullmatch(pattern, name) for pattern in dashed) else ""
        drawn = [(plot.x(t), plot.y(v)) for t, v in _bends(points)]
        if len(drawn) == 1:
            drawn.append((drawn[0][0] + 2, drawn[0][1]))
        key_x = x + (number % per_line) * width / per_line
        key_y = plot.bottom + 30 + (number // per_line) * 15
        parts += [
            path(drawn, stroke=colour, dash=dash),
            line(key_x, key_y - 4, key_x + 14, key_y - 4, stroke=colour, dash=dash),
            text(key_x + 18, key_y, cut(name, width / per_line - 22, 10), size=10, fill=INK),
        ]
    if hidden:
        number = len(shown)
        key_x, key_y = x + (number % per_line) * width / per_line, plot.bottom + 30 + (number // per_line) * 15
        parts.append(text(key_x, key_y, f"and {len(hidden)} more", size=10, fill=FAINT))
    return parts


def _lines(panel: Mapping[str, Any], answers: Answers) -> list[tuple[str, list[tuple[float, float]]]]:
    """A panel's series that have points, with what the legend calls them."""
    named = (
        (_legend(target["legendFormat"], series.labels), [p for p in series.points if math.isfinite(p[1])])
        for target in panel["targets"]
        for series in answers[sent(target)]
    )
    return [(name, points) for name, points in named if points]


def _axes(plot: _Plot, unit: str) -> list[str]:
    parts = []
    for n in range(_TICKS + 1):
        at = plot.y(plot.top * n / _TICKS)
        parts += [
            line(plot.left, at, plot.right, at),
            text(plot.left - 6, at + 4, _amount(plot.top * n / _TICKS, unit), fill=FAINT, size=10, end="end"),
        ]
    for moment, end in ((plot.first, ""), ((plot.first + plot.last) / 2, "middle"), (plot.last, "end")):
        clock = datetime.fromtimestamp(moment, UTC).strftime("%H:%M:%S")
        parts.append(text(plot.x(moment), plot.bottom + 13, clock, fill=FAINT, size=10, end=end))
    return parts


def _bends(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without the points at which a line just goes on as it was."""
    inner = zip(points, points[1:], points[2:], strict=False)
    kept = [point for before, point, after in inner if not before[1] == point[1] == after[1]]
    return [points[0], *kept, *points[1:][-1:]]


def _legend(template: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda m: labels.get(m[1], ""), template)


def _amount(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        for size, letter in ((86400, " d"), (3600, " h"), (60, " min"), (1, " s")):
            if value >= size:
                return f"{value / size:.3g}{letter}"
        return "0" if value == 0 else f"{value * 1000:.3g} ms"
    if unit == "bytes":
        for power, letter in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
            if value >= 1024**power:
                return f"{value / 1024**power:.3g} {letter}"
    suffix = {"bytes": " B", "ops": "/s", "reqps": "/s"}.get(unit, "")
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}{suffix}"
    return f"{value:.3g}{suffix}"
