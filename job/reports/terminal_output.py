"""Shows a run at a terminal: progress bars while it works, a table at its end."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from policy.descriptions import descriptions
from policy.report import Outcome, RunReport

_COLOURS = {
    Outcome.SUCCEEDED: "green",
    Outcome.DEGRADED: "yellow",
    Outcome.SKIPPED: "cyan",
    Outcome.FAILED: "red",
}


class TerminalProgress:
    """Implements :class:`job.steps.progress.Progress` with one progress bar per step, on standard error."""

    def __init__(self, console: Console | None = None) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=16),
            TimeElapsedColumn(),
            TextColumn("{task.fields[result]}"),
            console=console or Console(stderr=True),
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def start(self, step: str, total: int | None = None) -> None:
        """Starts a step's bar."""
        self._task = self._progress.add_task(step, total=total, result="")

    def advance(self, count: int) -> None:
        """Advances the bar by so many sessions."""
        if self._task is not None:
            self._progress.advance(self._task, count)

    def finish(self, result: str) -> None:
        """Ends the step's bar."""
        if self._task is not None:
            done = self._progress.tasks[self._task].completed
            self._progress.update(self._task, total=done or 1, completed=done or 1, result=result)
            self._task = None


def print_report(report: RunReport, console: Console | None = None) -> None:
    """Prints a run report as a table."""
    console = console or Console()
    why = "" if report.reason == "Completed" else f" ({report.reason})"
    console.print(f"[bold {_COLOURS[report.outcome]}]{report.outcome}[/]{why} in {report.duration_seconds:.1f} s")
    console.print(report.message, markup=False, highlight=False)
    if report.duration_seconds == 0:
        return  # the run did not start: all counts are zero
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column()
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for store, counts in (("database", report.sessions), ("Redis", report.redis)):
        if counts is None:
            continue
        first = store
        meanings = descriptions(type(counts))
        for name in type(counts).model_fields:
            if count := getattr(counts, name):
                table.add_row(first, name.replace("_", " "), f"{count:,}", meanings.get(name))
                first = ""
        if first:
            table.add_row(first, "nothing", "", "All counts are 0.")
    console.print(table)
