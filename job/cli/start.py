"""Entry point of the command ``session-policy``."""

from __future__ import annotations

import sys

from job.startup import SWITCH_SECONDS, garbage_collection_paused, schedule_as_batch


def main() -> None:
    """Runs the command line."""
    sys.setswitchinterval(SWITCH_SECONDS)
    schedule_as_batch()
    with garbage_collection_paused():
        from job.cli.main import main as command
    command()


if __name__ == "__main__":
    main()
