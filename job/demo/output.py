"""What the demo prints: headings, sentences and tables."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from job.demo.kinds import Kind, stays
from job.demo.session_outcomes import SessionOutcome
from job.demo.sessions import StoreContents
from job.reports.terminal_output import TerminalProgress
from job.steps.progress import NoProgress, Progress
from policy.spec import SessionPolicySpec

_STAYS, _GOES = "green", "yellow"
_ALL, _GONE = "all sessions", "all that had to go"
_BY_NAME = {kind.value: kind for kind in Kind}


class Output:
    """Prints to standard output; in colour on a terminal."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)

    def heading(self, text: str, aside: str = "") -> None:
        """A part of the demo begins."""
        self.console.print(f"\n[bold]{text}[/]" + (f"  [dim]{aside}[/]" if aside else ""))

    def show(self, what: RenderableType) -> None:
        """A paragraph or a table."""
        self.console.print(Padding(what, (0, 0, 0, 2), expand=False), markup=False)

    def done(self, text: str, started: float) -> None:
        """Something is done that began at ``started`` of the monotonic clock."""
        self.console.print(f"  [green]✓[/] {text} [dim]({time.monotonic() - started:.1f} s)[/]")

    def check(self, holds: bool, text: str) -> None:
        """The result of a check."""
        self.console.print(f"  {'[green]✓[/]' if holds else '[bold red]✗[/]'} {text}")

    def to_copy(self, line: str) -> None:
        """A command or a path, never wrapped."""
        self.console.print(f"    {line}", style="cyan", markup=False, soft_wrap=True)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Shows the progress of a run within the block."""
        if self.console.is_terminal:
            with TerminalProgress(self.console) as terminal:
                yield terminal
        else:
            yield _Lines(self.console)


class _Lines(NoProgress):
    """A line when a step is done, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def start(self, step: str, total: int | None = None) -> None:
        self._step, self._started = step, time.monotonic()

    def finish(self, result: str) -> None:
        seconds = time.monotonic() - self._started
        self._console.print(f"  {self._step}: {result} ({seconds:.1f} s)", markup=False)


def contents_table(
    stores: StoreContents,
    kinds: Mapping[str, Kind],
    spec: SessionPolicySpec,
    earlier: tuple[StoreContents, Mapping[str, Kind]] | None = None,
) -> Table:
    """What is in the stores, by kind of session.

    Args:
        stores: the stores.
        kinds: what kind of session each is.
        spec: the policy.
        earlier: both from before the run; then the table shows what has changed, too.
    """
    table = _table("")
    for store in ("PostgreSQL", "Redis"):
        table.add_column(store, justify="right")
        if earlier:
            table.add_column("", justify="right", min_width=7, style="dim")
    # After the run, all sessions that had to go are one line: the table before has them by kind.
    shown = [kind for kind in Kind if earlier is None or stays(kind, spec)]
    old = _counts(*earlier, shown) if earlier else {}
    for name, counts in _counts(stores, kinds, shown).items():
        kind = _BY_NAME.get(name)
        stay = stays(kind, spec) if kind else name != _GONE
        colour = "" if kind is None and stay else _STAYS if stay else _GOES
        cells: list[RenderableType] = []
        for count, was in zip(counts, old.get(name, counts), strict=True):
            cells.append("" if count is None else f"{count:,}" if count else "\N{EN DASH}")
            if earlier:
                cells.append(_change((count or 0) - (was or 0)))
        if kind and not earlier:
            cells.append(Text("stays" if stay else "goes", style=colour))
        table.add_row(Text(name, style="bold" if name == _ALL else colour), *cells)
    return table


def outcomes_table(outcomes: Iterable[SessionOutcome]) -> Table:
    """Single sessions before and after the run."""
    table = _table("User", "Session", "Before the run", "After it")
    for each in outcomes:
        after = Text(each.after, style=_STAYS if each.stayed else _GOES)
        table.add_row(each.user, Text(each.session_id, style="dim"), each.before, after)
    return table


def _table(*headers: str) -> Table:
    return Table(*headers, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")


def _counts(
    stores: StoreContents, kinds: Mapping[str, Kind], shown: Sequence[Kind]
) -> dict[str, tuple[int | None, int | None]]:
    """Rows and keys of the kinds shown, of all other kinds together, and what else is in Redis."""
    rows, keys = (Counter(kinds[i] for i in each) for each in (stores.rows, stores.keys))
    others = [kind for kind in Kind if kind not in shown]
    return {
        **{kind.value: (rows[kind], keys[kind]) for kind in shown},
        **({_GONE: (sum(rows[k] for k in others), sum(keys[k] for k in others))} if others else {}),
        _ALL: (rows.total(), keys.total()),
        "access logs": (None, len(stores.logs)),
        "user index entries": (None, len(stores.index)),
        "  that point nowhere": (None, len(stores.stale_entries)),
    }


def _change(change: int) -> str:
    return f"{change:+,}".replace("-", "\N{MINUS SIGN}") if change else ""
