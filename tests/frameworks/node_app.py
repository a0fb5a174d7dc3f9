"""Session stores of Node.js, installed once by npm and asked in processes of their own."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SOURCE = Path(__file__).parent / "node"
_INSTALL_SECONDS = 150


class NodeUnavailableError(Exception):
    """Node.js, npm or the packages are not there; the message says which."""


def install(cache: Path) -> Path:
    """The directory of the scripts, with their packages beside them.

    Args:
        cache: where it may stay from one run of the tests to the next.

    Raises:
        NodeUnavailableError: there is no Node.js, or npm cannot install.
    """
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        raise NodeUnavailableError(f"tests against Node.js frameworks need {' and '.join(missing)} on PATH")
    package = (_SOURCE / "package.json").read_bytes()
    directory = cache / hashlib.sha256(package).hexdigest()[:12]
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers share the directory
        for source in _SOURCE.iterdir():
            shutil.copy(source, directory)
        done = directory / ".installed"
        if not done.exists():
            command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
            try:
                subprocess.run(
                    command, cwd=directory, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS
                )
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                lines = str(error.stderr or error).strip().splitlines() or ["no reason given"]
                raise NodeUnavailableError(f"npm cannot install the Node.js frameworks: {lines[0]}") from error
            done.touch()
    return directory


class NodeStore:
    """One kind of session store.

    Args:
        directory: from :func:`install`.
        script: the script that knows it.
        ask: what the script is told besides, e.g. where the sessions are.
    """

    def __init__(self, directory: Path, script: str, **ask: Any) -> None:
        self._script = directory / script
        self._ask = ask

    def write(self, sessions: Mapping[str, int]) -> None:
        """Has the framework write sessions: id -> seconds they have left, less than 0 for expired ones."""
        self._run("write", sessions)

    def find(self, ids: Mapping[str, int]) -> set[str]:
        """Which of the sessions the framework still finds, with their content."""
        return self._run("find", ids)

    def _run(self, action: str, sessions: Mapping[str, int]) -> set[str]:
        finished = subprocess.run(
            ["node", str(self._script)],
            input=json.dumps({**self._ask, "action": action, "sessions": dict(sessions)}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        return set(json.loads(finished.stdout))
