"""The documentation's own copy of the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.cleanup.part import Outcome
from tests.bench.cleanup.plot import page
from tests.bench.cleanup.table import summary

_ROOT = Path(__file__).parents[3]
DOCUMENT = _ROOT / "docs" / "explanation" / "performance.md"
IMAGE = _ROOT / "docs" / "images" / "cleanup-bench.svg"
_BEGIN, _END = "<!-- figures: written by make bench -->\n", "<!-- end of figures -->\n"


def publish(outcomes: Sequence[Outcome], about: Mapping[str, str]) -> None:
    """Puts these figures into the documentation, in place of those that are there."""
    DOCUMENT.write_text(with_figures(DOCUMENT.read_text(), outcomes, about))
    IMAGE.write_text(page(outcomes, about))


def with_figures(document: str, outcomes: Sequence[Outcome], about: Mapping[str, str]) -> str:
    """The document with these figures.

    Raises:
        ValueError: it has no place for them.
    """
    before, begin, rest = document.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError("the document does not say where the figures go")
    machine = "\n".join(f"- {name}: {value}" for name, value in about.items())
    return f"{before}{begin}{summary(outcomes)}\n\n{machine}\n{end}{after}"
