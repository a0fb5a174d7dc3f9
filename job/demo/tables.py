"""What the demo shows as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from job.demo.kinds import Kind, stays
from job.demo.snapshot import Snapshot
from job.demo.stories import Story
from policy.spec import SessionPolicySpec

_STAYS, _GOES = "green", "yellow"
_Numbers = dict[str, tuple[int | None, int | None]]


def contents(
    stores: Snapshot,
    kinds: Mapping[str, Kind],
    spec: SessionPolicySpec,
    earlier: tuple[Snapshot, Mapping[str, Kind]] | None = None,
) -> RenderableType:
    """What is in the stores, by kind of session.

    Args:
        stores: the stores.
        kinds: what kind of session each is.
        spec: which of them may stay.
        earlier: the same from before; then the table shows what has changed, too.
    """
    table = _table()
    table.add_column("")
    for store in ("PostgreSQL", "Redis"):
        table.add_column(store, justify="right")
        if earlier:
            table.add_column("", justify="right", min_width=7, style="dim")
    if not earlier:
        table.add_column("")
    # Afterwards, all that had to go are one line: what each kind was is told before.
    apart = [kind for kind in Kind if earlier is None or stays(kind, spec)]
    was = _numbers(*earlier, apart) if earlier else {}
    for name, numbers in _numbers(stores, kinds, apart).items():
        cells: list[RenderableType] = []
        for number, old in zip(numbers, was.get(name, (None, None)), strict=True):
            cells.append("" if number is None else f"{number:,}" if number else "\N{EN DASH}")
            if earlier:
                cells.append(_change(number, old))
        kind = _BY_NAME.get(name)
        colour = (_GOES if name == _GONE else "") if kind is None else _STAYS if stays(kind, spec) else _GOES
        if not earlier:
            cells.append("" if kind is None else Text("stays" if stays(kind, spec) else "goes", style=colour))
        table.add_row(Text(name, style="bold" if name == _ALL else colour), *cells)
    return table


def fates(stories: Iterable[Story]) -> RenderableType:
    """Single sessions, and what became of them."""
    table = _table()
    for heading in ("User", "Session", "Before the run", "After it"):
        table.add_column(heading)
    for story in stories:
        fate = Text(story.fate, style=_STAYS if story.is_there else _GOES)
        table.add_row(story.user, Text(story.session_id, style="dim"), story.found, fate)
    return table


_ALL = "all sessions"
_GONE = "all that had to go"
_BY_NAME = {kind.value: kind for kind in Kind}


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")


def _numbers(stores: Snapshot, kinds: Mapping[str, Kind], apart: Sequence[Kind]) -> _Numbers:
    """Sessions by kind, those that are not told apart in one number, and what else is in the stores."""
    rows = Counter(kinds[i] for i in stores.rows)
    keys = Counter(kinds[i] for i in stores.ttls)
    others = [kind for kind in Kind if kind not in apart]
    return {
        **{kind.value: (rows[kind], keys[kind]) for kind in apart},
        **({_GONE: (sum(rows[k] for k in others), sum(keys[k] for k in others))} if others else {}),
        _ALL: (rows.total(), keys.total()),
        "access logs": (None, len(stores.logs)),
        "user index entries": (None, len(stores.index)),
        "  that point nowhere": (None, len(stores.stale_entries)),
    }


def _change(number: int | None, old: int | None) -> str:
    if number is None or old is None or number == old:
        return ""
    return f"{number - old:+,}".replace("-", "\N{MINUS SIGN}")
