"""A copy of the product with a rule type more: one line and one module, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from policy.names import DATABASE_URL_ENV
from tests.support.runs import manifest

ROOT = Path(__file__).parents[2]

LINE = '    LONG_ID = "LongId", "has an id of more than count characters", {"count": 10}\n'

MODULE = '''
"""LongId: a session with a long id."""

from stores.rules.detector import Detector


class LongId(Detector):
    """Finds sessions with long ids."""

    def sql_condition(self, columns, now):
        """Whether the row's id is long."""
        return columns.id_length > self.numbers["count"]

    def matches(self, details, now):
        """Whether its id is long."""
        return len(details.session.key) > self.numbers["count"]
'''


class CopyWithRule:
    """The product in a directory of its own, with the rule LongId."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        for package in ("policy", "stores", "job"):
            shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
        table = directory / "policy" / "rules.py"
        before, end, after = table.read_text().partition("\n    meaning: str\n")
        assert end
        table.write_text(f"{before.rstrip()}\n{LINE}{end}{after}")
        (directory / "stores" / "rules" / "long_id.py").write_text(MODULE)

    def definition(self) -> str:
        """The CustomResourceDefinition."""
        return self._command("crd", "sessionpolicies")

    def run(self, database_url: str, *rules: dict[str, Any]) -> str:
        """Runs a policy with these rules on a database; returns what was printed."""
        document = self._directory / "policy.json"
        document.write_text(json.dumps(manifest(rules=list(rules), maxConcurrentSessions=0)))
        return self._command("run", "-f", str(document), DATABASE_URL=database_url)

    def _command(self, *arguments: str, **environment: str) -> str:
        assert set(environment) <= {DATABASE_URL_ENV}
        done = subprocess.run(
            [sys.executable, "-m", "job.cli.start", *arguments],
            cwd=self._directory,
            env={**os.environ, **environment, "PYTHONPATH": str(self._directory)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
