"""The command line in this process, for commands that need no process of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from job.cli.main import main
from policy.names import DATABASE_URL_ENV, REDIS_URL_ENV


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """Standard output, which must be one JSON document."""
        return json.loads(self.stdout)

    @property
    def everything(self) -> str:
        return self.stdout + self.stderr


class CommandLine:
    """Commands on one policy and its stores."""

    def __init__(
        self, directory: Path, document: Mapping[str, Any], database_url: str | None, redis_url: str | None = None
    ) -> None:
        self._policy = directory / "policy.yaml"
        self._policy.write_text(json.dumps(document))
        self._environment = {DATABASE_URL_ENV: database_url, REDIS_URL_ENV: redis_url}

    def __call__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Answer:
        """Runs a command; `-f` is added."""
        result = CliRunner().invoke(
            main,
            [*arguments, "-f", str(self._policy)],
            env={**self._environment, "COLUMNS": "200", **(environment or {})},
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)
