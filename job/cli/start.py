"""Entry point of the command ``session-policy``."""

from __future__ import annotations

import sys

from job.startup import SWITCH_SECONDS, garbage_collection_paused, schedule_as_batch
from policy.exit_codes import EXIT_BAD_CONFIGURATION


def main() -> None:
    """Runs the command line. Exits with 2 if a package that the command needs is not installed."""
    sys.setswitchinterval(SWITCH_SECONDS)
    schedule_as_batch()
    try:
        with garbage_collection_paused():
            from job.cli.main import main as command
        command()
    except ModuleNotFoundError as error:
        print(
            f"error: the Python package {error.name} is not installed; run: pip install 'session-policy-operator[job]'",
            file=sys.stderr,
        )
        sys.exit(EXIT_BAD_CONFIGURATION)


if __name__ == "__main__":
    main()
