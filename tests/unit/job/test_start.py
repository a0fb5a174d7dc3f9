"""How the command starts: its scheduling policy on Linux, and what it says if a package is missing."""

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

MISSING = """
import sys
sys.modules["click"] = None  # as if it were not installed
"""

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has scheduling policies of this kind")


def policy_of(command: str) -> int:
    """The scheduling policy that the process has in the end."""
    ended = subprocess.run([sys.executable, "-c", command, "--help"], capture_output=True, text=True, check=True)
    assert "Usage:" in ended.stdout
    return int(ended.stdout.splitlines()[-1])


@only_linux
def test_a_run_is_batch_work_that_pushes_no_application_from_its_core() -> None:
    assert policy_of(COMMAND) == os.SCHED_BATCH


@only_linux
def test_where_that_is_forbidden_it_works_all_the_same() -> None:
    assert policy_of(FORBID + COMMAND) == os.SCHED_OTHER


def test_without_the_extra_job_it_says_in_one_line_what_to_install() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", MISSING + COMMAND, "run"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line == ("error: the Python package click is not installed; run: pip install 'session-policy-operator[job]'")
