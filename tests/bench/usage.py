"""What one process costs from its start to its exit, as the kernel accounts for it.

Run as a program it starts a command and prints what that took. It stands between a benchmark and what is measured,
because the memory of a new process is never accounted as less than that of whoever started it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_MIB = 1 << 20
# Linux counts the most resident memory in KiB, macOS in bytes.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process took.

    Attributes:
        exit_code: of the process; negative for the signal that ended it.
        wall_seconds: from its start to its exit.
        cpu_seconds: of all its threads, in user and kernel mode.
        peak_mib: the most memory it had resident.
    """

    exit_code: int
    wall_seconds: float
    cpu_seconds: float
    peak_mib: float


def measure(command: Sequence[str], environment: Mapping[str, str], stdout: Path, stderr: Path) -> Usage:
    """Runs a command to its end.

    Args:
        command: program and arguments.
        environment: all of its environment.
        stdout: where its standard output goes.
        stderr: where its standard error goes.
    """
    starter = [sys.executable, "-I", "-S", __file__, str(stdout), str(stderr), *command]
    told = subprocess.run(starter, env=dict(environment), check=True, stdout=subprocess.PIPE)
    return Usage(**json.loads(told.stdout))


def _main(stdout: str, stderr: str, command: list[str]) -> None:
    with open(stdout, "wb") as out, open(stderr, "wb") as err:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
    usage = Usage(
        exit_code=os.waitstatus_to_exitcode(status),
        wall_seconds=wall,
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_mib=used.ru_maxrss * _MAXRSS_UNIT / _MIB,
    )
    print(json.dumps(asdict(usage)))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], sys.argv[3:])
