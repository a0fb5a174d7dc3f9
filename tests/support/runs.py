"""Runs of a policy: in this process, where a test wants to look inside, or as a process, where that matters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from job.logs.run_logs import HashedSessionLog
from job.run import Run
from job.steps.initialise import Urls
from policy.manifest import SessionPolicy, parse_policy
from policy.names import API_VERSION, DATABASE_URL_ENV, KIND, REDIS_URL_ENV
from policy.report import RunReport
from stores.model.sessions import Session
from stores.sql.store import SessionDatabase
from stores.waiting.clock import RunClock
from tests.support.patience import PATIENCE_SECONDS

SECRET = {"secretKeyRef": {"name": "stores", "key": "url"}}
KEYS = {"session": "sess:{id}", "userIndex": "user_sess:{user}", "accessLog": "access_log:{id}"}
CLEANUP: dict[str, Any] = {"batchSizing": "Fixed"}
"""How expired sessions are deleted, unless a test says otherwise; see test_strategies_everywhere.py."""
AT_ONCE = {"attempts": 2, "delaySeconds": 0}


def manifest(*, redis: bool = False, table: Mapping[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A policy that deletes whatever is due, tries again without a pause and has no grace, unless told otherwise.

    Its batches have a fixed size, so that tests know how many there are.
    """
    stores: dict[str, Any] = {"database": {"urlFrom": SECRET}}
    if table is not None:
        stores["database"]["table"] = dict(table)
    if redis:
        stores["redis"] = {"urlFrom": SECRET, "keys": KEYS}
    defaults = {
        "safety": {"maxDeletePercent": 100},
        "retries": {"deletion": AT_ONCE, "database": AT_ONCE, "redis": AT_ONCE},
        "sync": {"graceSeconds": 0},
        "cleanup": dict(CLEANUP),
    }
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": "shop", "namespace": "web"},
        "spec": {**defaults, "stores": stores, **spec},
    }


def policy(**options: Any) -> SessionPolicy:
    """The policy of :func:`manifest`."""
    return parse_policy(manifest(**options))


@dataclass
class Log:
    """Keeps what was logged."""

    events: list[dict[str, Any]] = field(default_factory=list)

    def bind(self, **fields: Any) -> Log:
        """Of no matter here: what is logged counts, not by which part."""
        return self

    def info(self, event: str, **fields: Any) -> None:
        self.events.append({"level": "info", "event": event, **fields})

    def warning(self, event: str, **fields: Any) -> None:
        self.events.append({"level": "warning", "event": event, **fields})

    def error(self, event: str, **fields: Any) -> None:
        self.events.append({"level": "error", "event": event, **fields})

    def named(self, event: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e["event"] == event]


@dataclass(frozen=True)
class Result:
    """What a run in this process said and did."""

    report: RunReport
    exit_code: int
    log: Log

    @property
    def deleted(self) -> int:
        return self.report.sessions.deleted


def run(
    obeyed: SessionPolicy,
    database_url: str,
    redis_url: str | None = None,
    *,
    dry_run: bool = False,
    clock: RunClock | None = None,
    run_id: str = "run",
    environment: Mapping[str, str] | None = None,
    audit: HashedSessionLog | None = None,
) -> Result:
    """One run in this process."""
    log = Log()
    one = Run(obeyed, Urls(database_url, redis_url), run_id, clock or RunClock(600), log, dry_run, audit=audit)
    one.environment = environment or {}
    report, exit_code = one.execute()
    # What goes through the termination message must come out of it unchanged.
    assert RunReport.model_validate_json(json.dumps(report.to_json_object()), strict=True, by_name=False) == report
    return Result(report, exit_code, log)


# The command line as it is, but for the place of the termination message, which is a fixed path in a Pod, and, where a
# test asks for it, the time that a collector is given.
EXPORT_SECONDS_ENV = "TEST_EXPORT_SECONDS"
_WITH_TERMINATION_MESSAGE = """
import os, pathlib, sys
if given := os.environ.pop("TEST_EXPORT_SECONDS", ""):
    import policy.opentelemetry_env
    policy.opentelemetry_env.EXPORT_SECONDS = float(given)
import job.cli.main, job.cli.termination_message
job.cli.termination_message.write_termination_message.__defaults__ = (pathlib.Path(sys.argv.pop(1)),)
job.cli.main.main()
"""


@dataclass(frozen=True)
class Finished:
    """What is left of a process that ran the command line."""

    exit_code: int
    stdout: str
    stderr: str
    termination_message: str

    @property
    def report(self) -> RunReport:
        """The report on standard output, which must be the termination message, and nothing but one report."""
        assert self.stdout.strip() == self.termination_message.strip(), self
        return RunReport.model_validate_json(self.stdout, strict=True, by_alias=True, by_name=False)

    @property
    def everything(self) -> str:
        return self.stdout + self.stderr + self.termination_message


class Command:
    """A run by the command line, as a process of its own."""

    def __init__(
        self,
        directory: Path,
        document: Mapping[str, Any] | str | None,
        database_url: str | None,
        redis_url: str | None = None,
        *arguments: str,
        output: str | None = "json",
        environment: Mapping[str, str] | None = None,
        name: str = "run",
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._message = directory / "termination-log"
        self._message.write_text("")
        urls = {DATABASE_URL_ENV: database_url, REDIS_URL_ENV: redis_url}
        given = {k: v for k, v in os.environ.items() if k not in urls} | {k: v for k, v in urls.items() if v}
        command = [sys.executable, "-c", _WITH_TERMINATION_MESSAGE, str(self._message), name]
        if document is not None:
            path = directory / "policy.yaml"
            path.write_text(document if isinstance(document, str) else json.dumps(document))
            command += ["-f", str(path)]
        if output:
            command += ["--output", output]
        self.process = subprocess.Popen(
            [*command, *arguments],
            env=given | dict(environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def wait(self, timeout: float = PATIENCE_SECONDS) -> Finished:
        """Waits for its end."""
        try:
            stdout, stderr = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return Finished(self.process.returncode, stdout, stderr, self._message.read_text())


def command(
    directory: Path,
    document: Mapping[str, Any] | str | None,
    database_url: str | None,
    redis_url: str | None = None,
    *arguments: str,
    output: str | None = "json",
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Runs the command line to its end."""
    return Command(
        directory, document, database_url, redis_url, *arguments, output=output, environment=environment
    ).wait()


class InThread:
    """A run in a thread, for tests that hold it up and look at it from outside."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._result: list[Result] = []
        self._thread = threading.Thread(target=lambda: self._result.append(run(*arguments, **options)), daemon=True)
        self._thread.start()

    def result(self) -> Result:
        self._thread.join(PATIENCE_SECONDS)
        assert self._result, "the run did not end, or failed"
        return self._result[0]


@contextmanager
def run_held_up(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[InThread]:
    """A run that has the lock, has read its first page, and waits until the block ends."""
    reached, go_on, first = threading.Event(), threading.Event(), threading.Lock()
    original = SessionDatabase.delete_expired

    def wait(self: SessionDatabase, sessions: Sequence[Session]) -> Any:
        if first.acquire(blocking=False):
            reached.set()
            assert go_on.wait(PATIENCE_SECONDS)
        return original(self, sessions)

    monkeypatch.setattr(SessionDatabase, "delete_expired", wait)
    working = InThread(policy(), database_url)
    assert reached.wait(PATIENCE_SECONDS)
    try:
        yield working
    finally:
        go_on.set()
