"""A CPU limit as a Pod has it: a control group of the kernel with a quota in each tenth of a second."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.cleanup.part import PartUnavailableError

_PERIOD_US = 100_000
_ROOT = Path("/sys/fs/cgroup")
# The first for version 2, with all controllers in one place, the others for version 1.
_PLACES = (_ROOT, _ROOT / "cpu", _ROOT / "cpu,cpuacct")
# The shell joins the group, and then becomes the command.
_JOIN = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


@contextmanager
def cpu_limit(cores: float) -> Iterator[list[str]]:
    """Makes a control group. Yields what has to stand before a command that is to run in it.

    Args:
        cores: how much CPU it gets, 0.15 for 15 % of one.

    Raises:
        PartUnavailableError: this machine, or this user, cannot make one.
    """
    group = _made(int(cores * _PERIOD_US))
    try:
        yield ["sh", "-c", _JOIN, str(group)]
    finally:
        with suppress(OSError):
            group.rmdir()


def _made(quota: int) -> Path:
    for place in _PLACES:
        group = place / f"session-policy-bench-{os.getpid()}"
        if not (place / "cgroup.procs").exists():
            continue
        with suppress(OSError):
            group.mkdir()
            if (group / "cpu.max").exists():
                (group / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
                return group
            if (group / "cpu.cfs_quota_us").exists():
                (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
                (group / "cpu.cfs_quota_us").write_text(str(quota))
                return group
        with suppress(OSError):
            group.rmdir()
    raise PartUnavailableError("a control group with a CPU limit cannot be made here: it takes root and Linux")
