"""Renders trends as one self-contained HTML page, without scripts, in light and dark mode."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from html import escape

from job.reports.svg_charts import Series, bar_chart, line_chart, row_chart
from job.reports.text_plots import condense
from job.reports.trends import RunPoint, Trends
from job.reports.trends_table import minutes

_MAX_POINTS = 120
_MAX_CLIENTS = 12
_LAST_RUNS = 50
# Longer periods have no times of day on the axis.
_MAX_PERIOD_WITH_TIMES = timedelta(days=4)
# The number of colours in the style sheet.
_MAX_CAUSES = 6

_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --text: #1a1d21; --dim: #5c6570; --rule: #e3e6ea;
  --c1: #2563c9; --c2: #c2571a; --c3: #138a63; --c4: #8a4fbf; --c5: #a67c00; --c6: #b3365b;
  --good: #116b45; --bad: #a33a12; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --card: #1d2125; --text: #e9ecef; --dim: #9aa4af;
  --rule: #30363c; --c1: #6ea8fe; --c2: #f0955c; --c3: #4cc79a; --c4: #c39af0; --c5: #dcb84a; --c6: #ee83a2;
  --good: #5fd3a3; --bad: #f0955c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px 16px 48px; max-width: 1180px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 24px; } header p { margin: 4px 0 20px; color: var(--dim); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; margin: 0 0 16px; }
.tiles div, figure, section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.tiles div { padding: 12px 16px; } .tiles dt { color: var(--dim); font-size: 13px; }
.tiles dd { margin: 2px 0 0; font-size: 22px; font-weight: 600; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 16px; }
figure { margin: 0; padding: 16px; } figcaption, h2 { font-size: 15px; font-weight: 600; margin: 0 0 8px; }
svg { display: block; width: 100%; height: auto; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 0 0 8px; font-size: 13px; color: var(--dim); }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px;
  vertical-align: -1px; }
.grid { stroke: var(--rule); } .label { fill: var(--dim); font-size: 12px; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; } .dot { opacity: 0; } .dot:hover, .alone { opacity: 1; }
section { margin-top: 16px; padding: 16px; overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { padding: 6px 12px; text-align: right; border-top: 1px solid var(--rule); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th { color: var(--dim); font-weight: 500; border: 0; } th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
.Succeeded { color: var(--good); } .Degraded, .Failed { color: var(--bad); }
@media print { body { background: none; } figure, section { break-inside: avoid; } }
"""


def to_page(trends: Trends) -> str:
    """The HTML page."""
    colours = "".join(
        f".line.c{n} {{ stroke: var(--c{n}); }} .bar.c{n}, .dot.c{n} {{ fill: var(--c{n}); }} "
        f".k{n} {{ background: var(--c{n}); }}\n"
        for n in range(1, _MAX_CAUSES + 1)
    )
    title = f"Sessions of {trends.policy}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{colours}</style></head><body>"
        f"<header><h1>{escape(title)}</h1>"
        f"<p>{trends.since:%Y-%m-%d} to {trends.until:%Y-%m-%d %H:%M} UTC</p></header>"
        f"<main>{_content(trends)}</main></body></html>\n"
    )


def _content(trends: Trends) -> str:
    if not trends.runs:
        return "<section><p>No runs in this period.</p></section>"
    return f'{_tiles(trends)}<div class="charts">{"".join(_charts(trends))}</div>{_table(trends.runs)}'


def _tiles(trends: Trends) -> str:
    last = trends.runs[-1]
    tiles = (
        ("Active sessions", f"{last.active:,}"),
        ("Active users", f"{last.users:,}"),
        ("Deleted", f"{sum(run.deleted for run in trends.runs):,}"),
        ("Failed deletions", f"{sum(run.failed for run in trends.runs):,}"),
        ("Abnormal", f"{sum(run.abnormal for run in trends.runs):,}"),
        ("Average duration", minutes(trends.average_minutes)),
        ("Runs", f"{len(trends.runs):,}"),
    )
    return f'<dl class="tiles">{"".join(f"<div><dt>{n}</dt><dd>{v}</dd></div>" for n, v in tiles)}</dl>'


def _charts(trends: Trends) -> list[str]:
    runs = trends.runs
    labels = _labels(runs)
    charts = [
        line_chart(
            "Active sessions and users after each run",
            labels,
            [_line("Sessions", [float(r.active) for r in runs]), _line("Users", [float(r.users) for r in runs])],
        ),
        line_chart(
            "Sessions created and deleted per hour",
            labels,
            [
                _line("Created", [r.created_per_hour for r in runs]),
                _line("Deleted", [r.deleted_per_hour for r in runs]),
            ],
        ),
    ]
    if trends.deleted_by_day:
        days = [f"{day.day:%d %b}" for day in trends.deleted_by_day]
        charts.append(bar_chart("Sessions deleted each day, by cause", days, _causes(trends)))
        average = Series("Minutes", [day.average_minutes for day in trends.deleted_by_day])
        charts.append(line_chart("Average duration of deleted sessions, in minutes", days, [average]))
    if trends.by_hour:
        hours = [float(trends.by_hour.get(hour, 0)) for hour in range(24)]
        charts.append(
            bar_chart("Sessions created, by hour (UTC)", [f"{h:02}" for h in range(24)], [Series("Created", hours)])
        )
    if trends.by_client:
        most = dict(list(trends.by_client.items())[:_MAX_CLIENTS])
        charts.append(row_chart("Sessions created, by client", {name: float(n) for name, n in most.items()}))
    return charts


def _labels(runs: Sequence[RunPoint]) -> list[str]:
    count = min(len(runs), _MAX_POINTS)
    shown = "%d %b %H:%M" if runs[-1].at - runs[0].at < _MAX_PERIOD_WITH_TIMES else "%d %b"
    return [runs[n * len(runs) // count].at.strftime(shown) for n in range(count)]


def _line(name: str, values: list[float | None] | list[float]) -> Series:
    return Series(name, condense(values, _MAX_POINTS))


def _causes(trends: Trends) -> list[Series]:
    causes = trends.causes
    shown = causes if len(causes) <= _MAX_CAUSES else causes[: _MAX_CAUSES - 1]
    series = [Series(cause, [float(day.sessions.get(cause, 0)) for day in trends.deleted_by_day]) for cause in shown]
    rest = causes[len(shown) :]
    if rest:
        series.append(
            Series("Other", [float(sum(day.sessions.get(c, 0) for c in rest)) for day in trends.deleted_by_day])
        )
    return series


def _table(runs: Sequence[RunPoint]) -> str:
    names = ("Ended (UTC)", "Outcome", "Active", "Users", "Deleted", "Failed", "Remaining", "Abnormal", "Seconds")
    rows = "".join(
        f'<tr><td>{run.at:%Y-%m-%d %H:%M}</td><td class="{escape(run.outcome)}">{escape(run.outcome)}</td>'
        + "".join(f"<td>{n:,}</td>" for n in _counts(run))
        + f"<td>{run.seconds:.1f}</td></tr>"
        for run in reversed(runs[-_LAST_RUNS:])
    )
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<section><h2>Last runs</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></section>"


def _counts(run: RunPoint) -> tuple[int, ...]:
    return run.active, run.users, run.deleted, run.failed, run.remaining, run.abnormal
