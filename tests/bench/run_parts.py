"""The command ``session-policy`` with a table on standard error: CPU time and memory by the end of each part of a run.

``python -m tests.bench.expected_load -- python tests/bench/run_parts.py``, then read ``build/bench/stderr.log``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

_MB = 1_000_000


def _resident_mb() -> float:
    kib = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line)
    return int(kib) * 1024 / _MB


def _tell(part: str) -> None:
    print(f"{part:28} {time.process_time() * 1000:6.0f} ms {_resident_mb():6.1f} MB", file=sys.stderr)


def main() -> None:
    """Entry point."""
    _tell("interpreter")
    from job.cli.start import main as command

    _watch_run()
    try:
        command()
    finally:
        _tell("rest")


def _watch_run() -> None:
    from job.cli import run as cli

    prepare: Any = cli._prepare

    def prepared(*arguments: Any) -> Any:
        _tell("command line, policy")
        run = prepare(*arguments)
        _tell("import of the run")
        steps = run.trace.step

        def step(name: str, tally: Any) -> AbstractContextManager[None]:
            return _told(name, steps(name, tally))

        run.trace.step = step
        return run

    watched: Any = cli
    watched._prepare = prepared


@contextmanager
def _told(name: str, step: AbstractContextManager[None]) -> Iterator[None]:
    with step:
        yield
    _tell(f"step {name}")


if __name__ == "__main__":
    sys.argv.pop(0)  # of both programs, the second is the command
    main()
