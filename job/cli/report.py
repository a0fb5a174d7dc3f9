"""``session-policy report``: statistics and trends."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from job.cli.options import database_url, output, policy_file, prints_errors, read_policy, require_database_url
from stores.model.errors import ConfigurationError


@click.command()
@policy_file
@click.option("--policy", "name", metavar="NAMESPACE/NAME", help="The policy, without --file.")
@database_url
@click.option("--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="Period to report on.")
@click.option("--html", type=click.Path(dir_okay=False), help="Also write the report to this file, as one HTML page.")
@output
@prints_errors
def report(
    path: str | None, name: str | None, database_url: str | None, days: int, html: str | None, output: str
) -> None:
    """Shows the statistics of past runs: active sessions, rates, causes, durations and usage."""
    from job.reports.trends import read_trends

    if path is not None:
        metadata = read_policy(path).metadata
        name = f"{metadata.namespace}/{metadata.name}"
    trends = read_trends(require_database_url(database_url), name, days, datetime.now(UTC))
    if output == "json":
        click.echo(json.dumps(trends.to_json_object(), ensure_ascii=False))
    else:
        from rich.console import Console

        from job.reports.trends_table import print_trends

        print_trends(trends, Console())
    if html is not None:
        from job.reports.html_page import to_page

        try:
            Path(html).write_text(to_page(trends), encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"--html {html}: {error.strerror}") from None
        click.echo(f"wrote {html}", err=True)
