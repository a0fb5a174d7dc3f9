"""``session-policy demo``: shows a run on embedded stores."""

from __future__ import annotations

from pathlib import Path

import click

from policy.exit_codes import EXIT_BAD_CONFIGURATION


@click.command()
@click.option(
    "--directory",
    type=click.Path(file_okay=False),
    help="Where the servers keep their data; default: a temporary directory.",
)
@click.pass_context
def demo(context: click.Context, directory: str | None) -> None:
    """Shows a run on 20,000 sessions in an embedded PostgreSQL and Redis."""
    try:
        from job.demo.demo import run_demo
    except ModuleNotFoundError:
        click.echo(
            "error: the demo is not installed (the container image has none); "
            "install session-policy-operator[job,embedded]",
            err=True,
        )
        context.exit(EXIT_BAD_CONFIGURATION)

    context.exit(run_demo(Path(directory) if directory else None))
