"""Where the command ``session-policy`` begins and ends."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress

from job.imports import lasting
from policy.exit_codes import EXIT_BAD_CONFIGURATION

SWITCH_SECONDS = 0.0005
"""How long a thread that a store has answered waits for the other one: by default it would be ten times as long."""


def main() -> None:
    """Entry point. Exits with 2 if a package that the command needs is not installed."""
    sys.setswitchinterval(SWITCH_SECONDS)
    _become_batch_work()
    try:
        with lasting():
            from job.cli.main import main as command
        command()
    except ModuleNotFoundError as error:
        print(
            f"error: the Python package {error.name} is not installed; run: pip install 'session-policy-operator[job]'",
            file=sys.stderr,
        )
        sys.exit(EXIT_BAD_CONFIGURATION)
    finally:
        gc.freeze()  # the process ends: nobody needs the memory that a search for garbage would find


def _become_batch_work() -> None:
    """Has Linux take the process for batch work: a store's answer to it pushes no application from its core.

    It has its share of the CPU as before; see sched(7).
    """
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


if __name__ == "__main__":
    main()
