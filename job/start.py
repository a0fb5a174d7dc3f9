"""Where the command ``session-policy`` begins and ends."""

from __future__ import annotations

import gc

from job.imports import lasting


def main() -> None:
    """Entry point."""
    with lasting():
        from job.cli import main as command  # noqa: PLC0415 - not before
    try:
        command()
    finally:
        gc.freeze()  # the process ends: nobody needs the memory that a search for garbage would find


if __name__ == "__main__":
    main()
