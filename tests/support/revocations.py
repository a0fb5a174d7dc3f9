"""Revocations as the container makes them: in this process, or as a process of their own."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.logs.id_hasher import IdHasher
from job.logs.run_logs import open_logs
from job.revocation.revocation import Revocation
from job.steps.initialise import Urls
from policy.manifest import SessionPolicy, parse_target
from policy.names import LOG_HASH_KEY_ENV, REVOCATION_ENV
from policy.revocation import RevocationReport
from stores.waiting.clock import RunClock
from tests.support.runs import Command, Finished

KEY = "0123456789abcdef0123456789abcdef"
IDENTITIES = IdHasher(KEY.encode())


def report_of(text: str) -> RevocationReport:
    """The report in a termination message, read as strictly as the controller reads it."""
    return RevocationReport.model_validate_json(text, strict=True, by_alias=True, by_name=False)


@dataclass(frozen=True)
class Revoked:
    """What an attempt in this process said."""

    report: RevocationReport
    exit_code: int
    lines: list[dict[str, Any]]

    @property
    def cleanup_log(self) -> list[tuple[str, str]]:
        """Hash and cause of each session in the cleanup log."""
        return [(line["session"], line["cause"]) for line in self.lines if line["log"] == "cleanup"]


def revoke(
    obeyed: SessionPolicy,
    database_url: str | None,
    redis_url: str | None = None,
    *,
    clock: RunClock | None = None,
    has_key: bool = True,
    **target: str,
) -> Revoked:
    """One attempt in this process; the target is `user` or `sessionHash`."""
    stream = io.StringIO()
    logs = open_logs(stream, logging.INFO)
    report, exit_code = Revocation(
        obeyed,
        parse_target(json.dumps(target)),
        Urls(database_url, redis_url),
        clock or RunClock(600),
        logs.log,
        audit=logs.sessions(IDENTITIES),
        identities=IDENTITIES if has_key else None,
        poll_seconds=0.05,
    ).execute()
    assert report_of(json.dumps(report.to_json_object())) == report
    return Revoked(report, exit_code, [json.loads(line) for line in stream.getvalue().splitlines()])


def process(
    directory: Path,
    document: Mapping[str, Any] | None,
    database_url: str | None,
    redis_url: str | None = None,
    *,
    target: Mapping[str, str] | str | None,
    environment: Mapping[str, str] | None = None,
) -> Command:
    """One attempt as a process."""
    told = {} if target is None else {REVOCATION_ENV: target if isinstance(target, str) else json.dumps(target)}
    return Command(
        *(directory, document, database_url, redis_url),
        output=None,
        name="revoke",
        environment={LOG_HASH_KEY_ENV: KEY, **told, **(environment or {})},
    )


def finished(directory: Path, *arguments: Any, **options: Any) -> Finished:
    """One attempt as a process, to its end."""
    return process(directory, *arguments, **options).wait()
