"""The plan of the packages, drawn from the import-linter contracts: ``python -m tools.pictures.plan``."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tools.pictures.svg import FAINT, box, document, line, text

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "images" / "plan.svg"

_WIDTH, _ROW, _GAP, _BETWEEN, _TOP = 220, 28, 6, 44, 84
_SAYS = {
    "job": "one run, and the command line",
    "stores": "sessions in databases and Redis",
    "policy": "the contract of all sides; no I/O",
    "controller": "the operator",
}


def layers(package: str) -> list[str]:
    """The layers inside a package, from top to bottom, as its import-linter contract has them; none if it has none."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return next((c["layers"] for c in contracts if c.get("containers") == [package]), [])


def draw() -> str:
    """The plan as SVG: inside a package imports point down, between packages along the arrows."""
    height = _TOP + max(len(layers(package)) for package in _SAYS) * (_ROW + _GAP) + 30
    lefts = [20 + n * (_WIDTH + _BETWEEN) for n in range(len(_SAYS))]
    parts = [part for package, left in zip(_SAYS, lefts, strict=True) for part in _package(package, left, height - 20)]
    for left, says in zip(lefts[1:], ("▶", "▶", "◀"), strict=True):
        parts += [line(left - _BETWEEN + 6, 42, left - 6, 42, stroke=FAINT)]
        parts += [text(left - 16 if says == "▶" else left - _BETWEEN + 4, 46, says, fill=FAINT)]
    return document(lefts[-1] + _WIDTH + 20, height, "The packages and their layers", parts)


def _package(package: str, left: int, bottom: int) -> list[str]:
    parts = [
        box(left, 16, _WIDTH, bottom - 16),
        text(left + 14, 42, package, size=15, weight=600),
        text(left + 14, 62, _SAYS[package], fill=FAINT),
    ]
    for row, layer in enumerate(layers(package)):
        top = _TOP + row * (_ROW + _GAP)
        parts += [box(left + 12, top, _WIDTH - 24, _ROW, fill="#eef4fb", stroke="#9dbbe0")]
        parts += [text(left + 22, top + 19, layer.replace(" | ", "  ·  "))]
    return parts


if __name__ == "__main__":
    PICTURE.write_text(draw())
