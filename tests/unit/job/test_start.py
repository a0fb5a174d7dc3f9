"""How Linux schedules the process of a run: as batch work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FORBID = """
import os
def forbidden(*_):
    raise PermissionError("by a sandbox")
os.sched_setscheduler = forbidden
"""
COMMAND = """
import atexit, os
from job.cli.start import main
atexit.register(lambda: print(os.sched_getscheduler(0)))
main()
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has scheduling policies of this kind")


def policy_of(command: str) -> int:
    """The scheduling policy that the process has in the end."""
    ended = subprocess.run([sys.executable, "-c", command, "--help"], capture_output=True, text=True, check=True)
    assert "Usage:" in ended.stdout
    return int(ended.stdout.splitlines()[-1])


def test_a_run_is_batch_work_that_pushes_no_application_from_its_core() -> None:
    assert policy_of(COMMAND) == os.SCHED_BATCH


def test_where_that_is_forbidden_it_works_all_the_same() -> None:
    assert policy_of(FORBID + COMMAND) == os.SCHED_OTHER
