"""What each part of job/startup.py saves of a run at the expected load: runs with it and without it in turn.

``python -m tests.bench.startup --help``
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from tests.bench.expected_load import container, expected_load, inherited, running
from tests.bench.usage import measure

#: What to run before the command, so that one part does nothing.
PARTS = {
    "none": "",
    "garbage_collection_paused": "startup.garbage_collection_paused = contextlib.nullcontext",
    "without rich": "import rich",
    "without opentelemetry": "import opentelemetry",
    "SWITCH_SECONDS": "startup.SWITCH_SECONDS = sys.getswitchinterval()",
    "schedule_as_batch": "startup.schedule_as_batch = lambda: None",
}
_COMMAND = "import contextlib, sys; from job import startup; {part}; from job.cli.start import main; main()"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.startup", description=__doc__)
    parser.add_argument("--runs", type=int, default=15, help="pairs of runs for each part (%(default)s)")
    parser.add_argument("--keep", type=Path, default=Path("build/bench"), help="folder for the last run's output")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="by default all")
    chosen = parser.parse_args()
    chosen.keep.mkdir(parents=True, exist_ok=True)
    with running("both") as stores:
        arguments, environment = container("both", rules=True, stores=stores)

        def cpu_and_memory(part: str) -> tuple[float, float]:
            expected_load(stores)
            command = [sys.executable, "-c", _COMMAND.format(part=PARTS[part] or "pass"), *arguments]
            logs = chosen.keep / "stdout.log", chosen.keep / "stderr.log"
            usage = measure(command, inherited() | environment, *logs)
            if usage.exit_code:
                raise RuntimeError(f"the run ended with exit code {usage.exit_code}; see {logs[1]}")
            return usage.cpu_seconds * 1000, usage.peak_mib

        for part in chosen.parts or PARTS:
            cpu_and_memory(part)  # does not count
            pairs = [(cpu_and_memory("none"), cpu_and_memory(part)) for _ in range(chosen.runs)]
            cpu = statistics.median(b[0] - a[0] for a, b in pairs)
            memory = statistics.median(b[1] - a[1] for a, b in pairs)
            print(f"{part:30} saves {cpu:4.0f} ms of CPU, {memory:5.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
