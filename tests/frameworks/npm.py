"""Packages of Node.js, installed once by npm and shared by all tests."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

_INSTALL_SECONDS = 150


class NodeUnavailableError(Exception):
    """Node.js, npm or the packages are not there; the message says which."""


def install(source: Path, cache: Path) -> Path:
    """A directory with these scripts, and their packages beside them.

    Args:
        source: the scripts, with the package.json that names what they need.
        cache: where the packages may stay from one run of the tests to the next.

    Raises:
        NodeUnavailableError: there is no Node.js, or npm cannot install.
    """
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        raise NodeUnavailableError(f"tests against Node.js frameworks need {' and '.join(missing)} on PATH")
    directory = cache / hashlib.sha256((source / "package.json").read_bytes()).hexdigest()[:12]
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers share the directory
        for script in source.iterdir():
            shutil.copy(script, directory)
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
