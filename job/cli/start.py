"""Entry point of the command ``session-policy``."""

from __future__ import annotations

import sys

from job.startup import SWITCH_SECONDS, garbage_collection_paused, schedule_as_batch, skip_last_garbage_collection


def main() -> None:
    """Runs the command line."""
    sys.setswitchinterval(SWITCH_SECONDS)
    schedule_as_batch()
    with garbage_collection_paused():
        from job.cli.main import main as command
    try:
        command()
    finally:
        skip_last_garbage_collection()


if __name__ == "__main__":
    main()
