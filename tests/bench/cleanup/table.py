"""What was found, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.cleanup.goals import Row, quantity
from tests.bench.cleanup.part import Outcome
from tests.bench.figures import markdown


def text(outcomes: Sequence[Outcome], about: Mapping[str, str]) -> str:
    """The table, and under it the figures behind each verdict.

    Args:
        outcomes: of the parts.
        about: what a reader has to know of the machine and the run.
    """
    rows = [row for outcome in outcomes for row in outcome.rows]
    parts = [summary(outcomes), *(behind for row in rows if (behind := _behind(row)))]
    parts.append("\n".join(f"{name}: {value}" for name, value in about.items()))
    return "\n\n".join(parts) + "\n"


def summary(outcomes: Sequence[Outcome]) -> str:
    """A line for each goal."""
    rows = [row for outcome in outcomes for row in outcome.rows]
    cells = [("what", "goal", "figure", "verdict", "measured on")]
    cells += [(row.goal.what, row.goal.limit, figure(row), verdict(row), row.size) for row in rows]
    return markdown(cells)


def figure(row: Row) -> str:
    """The checked numbers of a row."""
    return "; ".join(f"{check.what} {quantity(check.value, check.unit)}" for check in row.checks)


def verdict(row: Row) -> str:
    """The verdict of a row, and why there is none."""
    return f"{row.verdict}: {row.unmeasured}" if row.unmeasured else str(row.verdict)


def _behind(row: Row) -> str:
    lines = [f"- {check}{'' if check.holds else ': missed'}" for check in row.checks]
    for one in row.figures:
        bare = f", {quantity(one.yardstick, one.unit)} {one.yardstick_is}" if one.yardstick is not None else ""
        lines.append(f"- {one.what}: {quantity(one.value, one.unit)}{bare}{f' ({one.note})' if one.note else ''}")
    for curve in row.curves:
        points = ", ".join(f"{number:,}: {quantity(value, curve.unit)}" for number, value in curve.points)
        lines.append(f"- {curve.title}: {points}")
    lines += [f"- {note}" for note in row.notes]
    return "\n".join([f"{row.goal.what}:", *lines]) if lines else ""


def document(outcomes: Sequence[Outcome], about: Mapping[str, str]) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "about": dict(about),
        "parts": [
            {
                "part": outcome.part,
                "seconds": round(outcome.seconds, 1),
                "failed": outcome.failed,
                "rows": [
                    asdict(row)
                    | {"verdict": row.verdict, "checks": [asdict(c) | {"holds": c.holds} for c in row.checks]}
                    for row in outcome.rows
                ],
            }
            for outcome in outcomes
        ],
    }


def save(outcomes: Sequence[Outcome], about: Mapping[str, str], path: Path) -> None:
    """Writes :func:`document`."""
    path.write_text(json.dumps(document(outcomes, about), indent=2) + "\n")
