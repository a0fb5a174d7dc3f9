"""The real process: ``session-policy run``, from its start to its exit."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from job.steps.initialise import Urls
from policy.names import DATABASE_URL_ENV, REDIS_URL_ENV
from tests.bench.usage import Usage, measure

_INHERITED = ("PATH", "PYTHONPATH", "LANG", "HOME")


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended.

    Attributes:
        usage: what it took.
        report: its last word.
        steps: what its log has told of, and how many seconds after what it told before.
        moments: what its log has told of, and when, in seconds since 1970.
    """

    usage: Usage
    report: Mapping[str, Any]
    steps: tuple[tuple[str, float], ...]
    moments: tuple[tuple[str, float], ...]


def command() -> str:
    """The console script, installed beside this Python.

    Raises:
        RuntimeError: it is not there.
    """
    script = shutil.which("session-policy", path=os.pathsep.join([str(Path(sys.executable).parent), os.defpath]))
    if script is None:
        raise RuntimeError("session-policy is not installed beside this Python")
    return script


def environment(urls: Urls, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """All of a run's environment."""
    given = {DATABASE_URL_ENV: urls.database, REDIS_URL_ENV: urls.redis}
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return inherited | {name: url for name, url in given.items() if url} | dict(extra or {})


@contextmanager
def prepared(document: Mapping[str, Any], directory: Path) -> Iterator[tuple[list[str], Path]]:
    """The command of a run by this policy, and a place for its output that goes afterwards."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=directory) as place:
        path = Path(place) / "policy.yaml"
        path.write_text(json.dumps(document))
        yield [command(), "run", "-f", str(path)], Path(place)


def run_policy(
    document: Mapping[str, Any],
    urls: Urls,
    directory: Path,
    extra: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
) -> Ended:
    """Runs a policy once, with its whole log.

    Args:
        document: the policy.
        urls: of the stores.
        directory: where logs may be kept.
        extra: of its environment.
        before: what stands before the command.

    Raises:
        RuntimeError: it did not succeed.
    """
    with prepared(document, directory) as (words, place):
        stdout, stderr = place / "stdout.log", place / "stderr.log"
        usage = measure([*before, *words], environment(urls, extra), stdout, stderr)
        ended = Ended(usage, *_told(stdout))
        if usage.exit_code or ended.report.get("outcome") != "Succeeded":
            raise RuntimeError(
                f"the run ended with exit code {usage.exit_code}: {dict(ended.report)}{stderr.read_text()[-500:]}"
            )
    return ended


def _told(log: Path) -> tuple[Mapping[str, Any], tuple[tuple[str, float], ...], tuple[tuple[str, float], ...]]:
    """The report, the steps and their moments, from a log of which most lines are about single sessions."""
    moments: list[tuple[str, float]] = []
    report: Mapping[str, Any] = {}
    with log.open() as lines:
        for line in lines:
            if '"log": "run"' not in line[:200]:
                continue
            said = json.loads(line)
            moments.append((said["event"], datetime.fromisoformat(said["time"]).timestamp()))
            if said["event"] == "run finished":
                report = said
    steps = tuple((event, at - before) for (_, before), (event, at) in pairwise(moments))
    return report, steps, tuple(moments)
