"""Where the command ``session-policy`` begins and ends."""

from __future__ import annotations

import gc
import sys

from job.imports import lasting

SWITCH_SECONDS = 0.0005
"""How long a thread that a store has answered waits for the other one: by default it would be ten times as long."""


def main() -> None:
    """Entry point."""
    sys.setswitchinterval(SWITCH_SECONDS)
    with lasting():
        from job.cli import main as command  # noqa: PLC0415 - not before
    try:
        command()
    finally:
        gc.freeze()  # the process ends: nobody needs the memory that a search for garbage would find


if __name__ == "__main__":
    main()
