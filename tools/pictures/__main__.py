"""Draws the pictures anew. Needs what the control plane tests need, and a Prometheus server on PATH."""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.pictures.dashboard import draw_dashboard
from tools.pictures.dashboard_scene import dashboard_scene
from tools.pictures.trace import draw_trace
from tools.pictures.trace_scene import trace_scene

IMAGES = Path(__file__).parents[2] / "docs" / "images"


def main() -> None:
    """Draw what is asked for, or everything."""
    parser = argparse.ArgumentParser(prog="python -m tools.pictures", description=__doc__)
    parser.add_argument("picture", nargs="?", choices=("dashboard", "trace"))
    chosen = parser.parse_args().picture
    if chosen in (None, "trace"):
        (IMAGES / "trace.svg").write_text(draw_trace(trace_scene()))
    if chosen in (None, "dashboard"):
        (IMAGES / "dashboard.svg").write_text(draw_dashboard(*dashboard_scene()))


if __name__ == "__main__":
    main()
