"""``make bench``: measure, print a table, keep the figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.bench.figures import save, table
from tests.bench.operator_bench import measure


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--policies", type=int, default=2_000, help="policies on the cluster (%(default)s)")
    parser.add_argument("--jobs", type=int, default=5_000, help="finished Jobs in the end (%(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("build/bench"), help="folder for figures and logs (%(default)s)"
    )
    chosen = parser.parse_args()
    if not chosen.policies < chosen.jobs <= 3 * chosen.policies:
        parser.error("--jobs must be more than --policies, and at most three times as many")
    chosen.output.mkdir(parents=True, exist_ok=True)
    found = measure(chosen.policies, chosen.jobs, chosen.output / "controller.log")
    print(f"\n{table(found)}")
    save(found, chosen.output / "operator.json")


if __name__ == "__main__":
    main()
