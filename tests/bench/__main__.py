"""``make bench``: measure, print a table, keep the figures.

The cleanup run is held against its goals, part by part, and what the operator costs is measured on a real API server.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil

from tests.bench.cleanup import part, table
from tests.bench.cleanup.parts import PARTS
from tests.bench.cleanup.plot import page
from tests.bench.cleanup.published import publish
from tests.bench.cleanup.servers import SETTINGS
from tests.bench.figures import save
from tests.bench.figures import table as operator_table
from tests.bench.operator_bench import measure
from tests.support.controlplane import ControlPlaneUnavailable, find_programs

_OPERATOR = "operator"
_NAMES = (*(each.name for each in PARTS), _OPERATOR)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", type=_names, default=_NAMES, metavar="PART,...", help=f"of {', '.join(_NAMES)}")
    parser.add_argument("--skip", type=_names, default=(), metavar="PART,...", help="all others")
    parser.add_argument("--full", action="store_true", help="the sizes that the goals name; this takes an hour or two")
    parser.add_argument(
        "--document", action="store_true", help="put the figures of the cleanup run into the documentation"
    )
    parser.add_argument("--policies", type=int, default=2_000, help="operator: policies on the cluster (%(default)s)")
    parser.add_argument("--jobs", type=int, default=5_000, help="operator: finished Jobs in the end (%(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("build/bench"), help="folder for figures and logs (%(default)s)"
    )
    chosen = parser.parse_args()
    if not chosen.policies < chosen.jobs <= 3 * chosen.policies:
        parser.error("--jobs must be more than --policies, and at most three times as many")
    chosen.output.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in _NAMES if name in chosen.only and name not in chosen.skip]
    if chosen.document and not all(each.name in wanted for each in PARTS):
        parser.error("--document needs all parts of the cleanup run")
    whole = _cleanup(wanted, part.Setting(chosen.full, chosen.output), document=chosen.document)
    if _OPERATOR in wanted:
        _operator(chosen.policies, chosen.jobs, chosen.output)
    sys.exit(0 if whole else 1)


def _names(words: str) -> tuple[str, ...]:
    names = tuple(words.split(","))
    if unknown := [name for name in names if name not in _NAMES]:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}: there are {', '.join(_NAMES)}")
    return names


def _cleanup(wanted: Sequence[str], setting: part.Setting, *, document: bool) -> bool:
    """Measures the cleanup run. Returns whether every part could be measured as far as this machine allows."""
    parts = [each for each in PARTS if each.name in wanted]
    if not parts:
        return True
    about = _about(setting)
    outcomes: list[part.Outcome] = []
    for outcome in part.run(parts, setting, lambda words: print(words, flush=True)):
        outcomes.append(outcome)
        # After each part, so that a long run that is stopped leaves what it has.
        table.save(outcomes, about, setting.directory / "cleanup.json")
        (setting.directory / "cleanup.txt").write_text(table.text(outcomes, about))
        (setting.directory / "cleanup.svg").write_text(page(outcomes, about))
    print(f"\n{table.text(outcomes, about)}\nPlots: {setting.directory / 'cleanup.svg'}", flush=True)
    if document:
        publish(outcomes, about)
    return not any(outcome.failed for outcome in outcomes)


def _about(setting: part.Setting) -> dict[str, str]:
    memory = psutil.virtual_memory().total / 2**30
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return {
        "measured": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {'full' if setting.full else 'default'} sizes",
        "machine": f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, Python "
        f"{platform.python_version()}; servers, run and yardsticks share it; load average before: {load}",
        "servers": " ".join(SETTINGS),
    }


def _operator(policies: int, jobs: int, directory: Path) -> None:
    try:
        find_programs()
    except ControlPlaneUnavailable as missing:
        print(f"operator: skipped: {missing}")
        return
    found = measure(policies, jobs, directory / "controller.log")
    print(f"\n{operator_table(found)}")
    save(found, directory / "operator.json")


if __name__ == "__main__":
    main()
