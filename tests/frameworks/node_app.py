"""Session stores of Node.js, installed once by npm and asked in processes of their own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.patience import PATIENCE_SECONDS

SCRIPTS = Path(__file__).parent / "node"


class NodeStore:
    """One kind of session store.

    Args:
        directory: from :func:`tests.frameworks.npm.install`.
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
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        return set(json.loads(finished.stdout))
