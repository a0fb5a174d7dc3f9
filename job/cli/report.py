"""``session-policy report``: statistics and trends."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from job.cli.options import database_url, output, policy_file, prints_errors, read_policy
from policy.names import DATABASE_URL_ENV
from stores.model.errors import ConfigurationError


@click.command()
@policy_file
@click.option("--policy", "name", metavar="NAMESPACE/NAME", help="Whose statistics, where no file says so.")
@database_url
@click.option("--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="How far back.")
@click.option("--html", type=click.Path(dir_okay=False), help="Also writes the report to this file, as one HTML page.")
@output
@prints_errors
def report(
    path: str | None, name: str | None, database_url: str | None, days: int, html: str | None, output: str
) -> None:
    """Shows what runs have left: active sessions, rates, causes, durations and usage."""
    from job.reports.trends import read_trends

    if not database_url:
        raise ConfigurationError(f"no database URL: set {DATABASE_URL_ENV} or give --database-url")
    if path is not None:
        metadata = read_policy(path).metadata
        name = f"{metadata.namespace}/{metadata.name}"
    trends = read_trends(database_url, name, days, datetime.now(UTC))
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
