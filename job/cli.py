"""The command line ``session-policy``: at the edge, where files, environment, signals and terminals are."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from job.clock import RunClock
from job.errors import ConfigurationError, RunError
from job.logs import configure
from job.reporting import to_text, write_termination_message
from policy.manifest import InvalidPolicyError, SessionPolicy, load_policy
from policy.names import DATABASE_URL_ENV, JOB_UID_ENV, REDIS_URL_ENV, SPEC_ENV
from policy.report import Outcome, RunReport, printable

_BAD_CONFIGURATION = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="session-policy-operator")
def main() -> None:
    """Keeps web sessions healthy, as a SessionPolicy says."""


_file = click.option(
    "-f",
    "--file",
    "path",
    type=click.Path(),
    help="The policy: the manifest that kubectl apply takes; - for standard input.",
)
_database_url = click.option(
    "--database-url",
    envvar=DATABASE_URL_ENV,
    show_envvar=True,
    help="Where the sessions are, e.g. postgresql://user:password@host/database.",
)
_redis_url = click.option(
    "--redis-url", envvar=REDIS_URL_ENV, show_envvar=True, help="Redis, e.g. redis://:password@host:6379/0."
)


@main.command()
@_file
@_database_url
@_redis_url
@click.option("--dry-run", is_flag=True, help="Find and report everything, change nothing.")
@click.option(
    "--output",
    type=click.Choice(["table", "json"]),
    help="A table for people (the default on a terminal), or the run report as JSON. Without it, JSON logs.",
)
@click.pass_context
def run(
    context: click.Context,
    path: str | None,
    database_url: str | None,
    redis_url: str | None,
    dry_run: bool,
    output: str | None,
) -> None:
    """Runs a policy once.

    Exit code: 0 done (also when degraded or skipped), 1 failed and a retry may help, 2 bad configuration.
    """
    output = output or ("table" if sys.stdout.isatty() else None)
    log = configure(
        sys.stderr if output else sys.stdout,
        logging.WARNING if output == "table" else logging.INFO,
        for_people=output == "table",
    )
    try:
        policy = _policy(path)
        if not database_url:
            raise ConfigurationError(f"no database URL: set {DATABASE_URL_ENV} or give --database-url")
    except (InvalidPolicyError, ConfigurationError) as error:
        problems = error.problems if isinstance(error, InvalidPolicyError) else [str(error)]
        if output != "table":  # there the report says it all
            log.error("invalid configuration", problems=problems)
        report = _rejected("; ".join(problems))
        _finish(report, _BAD_CONFIGURATION, output, context)
        return
    report, exit_code = _execute(policy, database_url, redis_url, dry_run, output, log)
    _finish(report, exit_code, output, context)


def _execute(
    policy: SessionPolicy,
    database_url: str,
    redis_url: str | None,
    dry_run: bool,
    output: str | None,
    log: Any,
) -> tuple[RunReport, int]:
    # Imported here, so that other commands do not pay for database and Redis clients.
    from job.run import Run
    from job.steps.initialise import Urls

    clock = RunClock(policy.spec.job.timeout_seconds)
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: clock.request_stop())
    run_id = os.environ.get(JOB_UID_ENV) or str(uuid.uuid4())
    one = Run(policy, Urls(database_url, redis_url), run_id, clock, log, dry_run)
    if output != "table":
        return one.execute()
    from job.terminal import Terminal

    with Terminal() as terminal:
        one.progress = terminal
        return one.execute()


def _finish(report: RunReport, exit_code: int, output: str | None, context: click.Context) -> None:
    write_termination_message(report)
    if output == "json":
        click.echo(to_text(report))
    elif output == "table":
        from job.terminal import print_report

        print_report(report)
    context.exit(exit_code)


def _policy(path: str | None) -> SessionPolicy:
    if path is None:
        text = os.environ.get(SPEC_ENV)
        if text is None:
            raise ConfigurationError(f"no policy: give one with --file, or its manifest in {SPEC_ENV}")
    elif path == "-":
        text = sys.stdin.read()
    else:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigurationError(f"the policy {path} cannot be read: {reason}") from None
    return load_policy(text)


def _rejected(message: str) -> RunReport:
    now = datetime.now(UTC)
    return RunReport(
        outcome=Outcome.FAILED,
        reason=ConfigurationError.reason,
        message=printable(message),
        start_time=now,
        completion_time=now,
        duration_seconds=0,
    )


@main.command()
@_file
@_database_url
@click.pass_context
def init(context: click.Context, path: str | None, database_url: str | None) -> None:
    """Creates the tables for statistics, history and settings, and the default session table.

    Tables that exist already are left as they are.
    """
    import sqlalchemy as sa

    from job.database.connect import create_engine, parse_url, translate
    from job.database.schema import create_tables
    from policy.presets import PRESETS, resolve_table
    from policy.stores import Preset

    try:
        if not database_url:
            raise ConfigurationError(f"no database URL: set {DATABASE_URL_ENV} or give --database-url")
        table = resolve_table(_policy(path).spec.stores.database) if path else PRESETS[Preset.DEFAULT]
        engine = create_engine(parse_url(database_url), create_file=True)
        try:
            with engine.begin() as connection:
                created = create_tables(connection, table)
        except sa.exc.SQLAlchemyError as error:
            raise translate(error) from error
        finally:
            engine.dispose()
    except (InvalidPolicyError, RunError) as error:
        click.echo(f"error: {error}", err=True)
        context.exit(error.exit_code if isinstance(error, RunError) else _BAD_CONFIGURATION)
    click.echo(f"created {', '.join(created)}" if created else "nothing to create: all tables exist")


@main.command()
def crd() -> None:
    """Prints the CustomResourceDefinition of SessionPolicy."""
    import yaml

    from policy.crd import crd as definition

    click.echo(yaml.safe_dump(definition(), sort_keys=False, width=110), nl=False)


@main.command()
@click.option(
    "--directory",
    type=click.Path(file_okay=False),
    help="Where the servers keep their data; default: temporary.",
)
@click.pass_context
def demo(context: click.Context, directory: str | None) -> None:
    """Shows a run on 20,000 sessions in an embedded PostgreSQL and Redis."""
    try:
        from job.demo.show import show
    except ModuleNotFoundError:
        click.echo("error: the container image has no demo; install session-policy-operator[job,embedded]", err=True)
        context.exit(_BAD_CONFIGURATION)

    context.exit(show(Path(directory) if directory else None))


if __name__ == "__main__":
    main()
