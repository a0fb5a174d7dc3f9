"""``session-policy doctor``: checks a policy, its stores and its alert channels."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import TYPE_CHECKING

import click

from job.cli.options import database_url, output, policy_file, prints_errors, read_policy, redis_url
from policy.exit_codes import EXIT_BAD_CONFIGURATION, EXIT_DONE

if TYPE_CHECKING:
    from stores.sql.mapping.findings import Finding

_MARKS = {"Error": ("red", "error"), "Warning": ("yellow", "warning"), "Info": ("cyan", "note")}


@click.command()
@policy_file
@database_url
@redis_url
@output
@prints_errors
def doctor(path: str | None, database_url: str | None, redis_url: str | None, output: str) -> None:
    """Checks a policy, its stores and its alert channels. Takes no lock and changes nothing.

    Exit code: 0 a run can start, 2 it cannot.
    """
    from job.cli.doctor_checks import check_policy
    from job.logs.run_logs import open_logs
    from stores.sql.mapping.findings import Severity

    policy = read_policy(path)
    # The checks also return what they log.
    log = open_logs(sys.stderr, logging.CRITICAL, for_people=True).log
    findings = check_policy(policy, database_url, redis_url, os.environ, log)
    refused = any(finding.severity is Severity.ERROR for finding in findings)
    if output == "json":
        click.echo(json.dumps({"ready": not refused, "findings": [_document(f) for f in findings]}, ensure_ascii=False))
    else:
        _print(findings, refused)
    sys.exit(EXIT_BAD_CONFIGURATION if refused else EXIT_DONE)


def _document(finding: Finding) -> dict[str, str]:
    return {
        "severity": finding.severity.value,
        "field": finding.field,
        "message": finding.message,
        "remedy": finding.remedy,
    }


def _print(findings: list[Finding], refused: bool) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    for finding in findings:
        colour, word = _MARKS[finding.severity.value]
        console.print(f"[{colour}]{word:<8}[/] [bold]{escape(finding.field)}[/]: {escape(finding.message)}")
        if finding.remedy:
            # Not wrapped, so that a statement can be copied.
            console.print(f"         {escape(finding.remedy)}", soft_wrap=True)
    console.print("[red]A run would refuse to start.[/]" if refused else "[green]A run can start.[/]")
