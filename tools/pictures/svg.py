"""Shapes and text of a picture that needs nothing but a browser, and can be read on light and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

INK, FAINT, PAPER, FRAME = "#1f2430", "#6b7280", "#ffffff", "#d5d9e0"
COLOURS = ("#2f6fde", "#d9822b", "#2e9f6b", "#b5468b", "#7a5cd0", "#c0392b", "#16808f", "#8a8f00")


def document(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    """A whole picture."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, -apple-system, Segoe UI, sans-serif" font-size="12">\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="{width:g}" height="{height:g}" fill="#f3f4f7"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def text(x: float, y: float, words: str, *, fill: str = INK, size: int = 12, weight: int = 400, end: str = "") -> str:
    """A line of text; `end` is its anchor, the start by default."""
    anchor = f' text-anchor="{end}"' if end else ""
    bold = f' font-weight="{weight}"' if weight != 400 else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" font-size="{size}"{bold}{anchor}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, *, fill: str = PAPER, stroke: str = FRAME) -> str:
    """A rectangle."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.8):.1f}" height="{height:.1f}" rx="3" fill="{fill}" '
        f'stroke="{stroke}"/>'
    )


def line(x1: float, y1: float, x2: float, y2: float, *, stroke: str = FRAME, dash: str = "") -> str:
    """A straight line."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"{dashed}/>'


def path(points: Sequence[tuple[float, float]], *, stroke: str, dash: str = "") -> str:
    """A line through points."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    steps = " ".join(f"{'M' if n == 0 else 'L'}{x:.1f} {y:.1f}" for n, (x, y) in enumerate(points))
    return f'<path d="{steps}" fill="none" stroke="{stroke}" stroke-width="1.6"{dashed}/>'


def cut(words: str, room: float, size: int = 12) -> str:
    """As much of the words as fits, by the width of an average letter."""
    most = max(1, int(room / (size * 0.56)))
    return words if len(words) <= most else words[: most - 1] + "…"
