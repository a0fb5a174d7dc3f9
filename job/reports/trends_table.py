"""Prints trends at a terminal: totals, sparklines, bars, and the last runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from job.reports.text_plots import bars, sparkline
from job.reports.trends import Trends

_LAST_RUNS = 12
_MAX_CLIENTS = 10
_COLOURS = {"Succeeded": "green", "Degraded": "yellow"}


def print_trends(trends: Trends, console: Console) -> None:
    """Prints the trends."""
    plain = not (console.encoding or "").lower().startswith("utf")
    console.print(f"[bold]{escape(trends.policy)}[/]  {trends.since:%Y-%m-%d} to {trends.until:%Y-%m-%d}, UTC")
    if not trends.runs:
        console.print("No runs in this period.")
        return
    _figures(trends, console)
    _lines(trends, console, plain)
    by_cause = {cause: sum(day.sessions.get(cause, 0) for day in trends.deleted_by_day) for cause in trends.causes}
    _bars("Deleted, by cause", by_cause, console, plain)
    _bars("Created, by hour (UTC)", {f"{hour:02}": n for hour, n in trends.by_hour.items()}, console, plain)
    _bars("Created, by client", dict(list(trends.by_client.items())[:_MAX_CLIENTS]), console, plain)
    _runs(trends, console)


def _figures(trends: Trends, console: Console) -> None:
    last = trends.runs[-1]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for name, value in (
        ("active sessions", f"{last.active:,}"),
        ("active users", f"{last.users:,}"),
        ("deleted", f"{sum(run.deleted for run in trends.runs):,}"),
        ("failed deletions", f"{sum(run.failed for run in trends.runs):,}"),
        ("abnormal", f"{sum(run.abnormal for run in trends.runs):,}"),
        ("average duration", minutes(trends.average_minutes)),
        ("runs", f"{len(trends.runs):,}"),
    ):
        table.add_row(name, value)
    console.print(table)


def _lines(trends: Trends, console: Console, plain: bool) -> None:
    width = max(20, min(60, console.width - 40))
    series: Sequence[tuple[str, list[float | None]]] = (
        ("active sessions", [float(run.active) for run in trends.runs]),
        ("created per hour", [run.created_per_hour for run in trends.runs]),
        ("deleted per hour", [run.deleted_per_hour for run in trends.runs]),
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title="Trends", title_justify="left")
    table.add_column("")
    table.add_column("", no_wrap=True)
    table.add_column("lowest", justify="right")
    table.add_column("highest", justify="right")
    for name, values in series:
        known = [v for v in values if v is not None]
        if known:
            plot = sparkline(values, width, plain=plain)
            table.add_row(name, plot, f"{min(known):,.0f}", f"{max(known):,.0f}")
    console.print()
    console.print(table)


def _bars(title: str, counts: Mapping[str, int], console: Console, plain: bool) -> None:
    if not counts:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    for name, count, bar in bars(counts, max(10, min(40, console.width - 40)), plain=plain):
        table.add_row(escape(name), f"{count:,}", bar)
    console.print()
    console.print(table)


def _runs(trends: Trends, console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title="Last runs", title_justify="left")
    table.add_column("ended (UTC)", no_wrap=True)
    table.add_column("outcome")
    for name in ("active", "deleted", "failed", "remaining", "abnormal", "seconds"):
        table.add_column(name, justify="right")
    for run in reversed(trends.runs[-_LAST_RUNS:]):
        table.add_row(
            f"{run.at:%Y-%m-%d %H:%M}",
            f"[{_COLOURS.get(run.outcome, 'red')}]{escape(run.outcome)}[/]",
            *(f"{n:,}" for n in (run.active, run.deleted, run.failed, run.remaining, run.abnormal)),
            f"{run.seconds:.1f}",
        )
    console.print()
    console.print(table)


def minutes(value: float | None) -> str:
    """A duration in minutes, as text."""
    if value is None:
        return "unknown"
    return f"{value:.1f} min" if value < 120 else f"{value / 60:.1f} h"  # noqa: PLR2004 - two hours
