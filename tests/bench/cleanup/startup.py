"""The load that most policies have: mostly a start, and so mostly imports."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

from tests.bench.cleanup.goals import Bound, Check, Goal, Row
from tests.bench.cleanup.part import Part, Setting
from tests.bench.cleanup.rounds import spread
from tests.bench.expected_load import EXPIRED, LIVE, measure_runs
from tests.bench.figures import Figure
from tests.bench.usage import measure

_RUNS = 7
_MB_PER_MIB = 1.048576

GOAL = Goal(
    f"expected load: {LIVE:,} active, {EXPIRED} expired",
    "start to exit ≤ 1.5 s, ≤ 90 MB resident, CPU time ≤ 1.2 s",
)


def _measure(setting: Setting) -> list[Row]:
    found = measure_runs("both", _RUNS, rules=True, traced=False, python=[], keep=setting.directory)
    bare = [_bare_start(setting.directory) for _ in range(_RUNS)]
    wall = [usage.wall_seconds for usage in found]
    cpu = [usage.cpu_seconds for usage in found]
    peak = [usage.peak_mib * _MB_PER_MIB for usage in found]
    return [
        Row(
            GOAL,
            (
                Check("wall", median(wall), Bound.AT_MOST, 1.5, "s"),
                Check("resident", median(peak), Bound.AT_MOST, 90, "MB"),
                Check("CPU", median(cpu), Bound.AT_MOST, 1.2, "s"),
            ),
            f"PostgreSQL and Redis, the policy of examples/policy.yaml, median of {_RUNS} runs",
            figures=(
                Figure("wall time", median(wall), "s", median(bare), "for Python to start and end", spread(wall)),
                Figure("CPU time", median(cpu), "s", note=spread(cpu)),
            ),
        )
    ]


def _bare_start(directory: Path) -> float:
    """What the machine takes for any Python program; no goal can be under that."""
    return measure([sys.executable, "-c", "pass"], {}, directory / "stdout.log", directory / "stderr.log").wall_seconds


PART = Part("expected-load", (GOAL,), _measure)
