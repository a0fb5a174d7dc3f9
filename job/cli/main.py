"""The command line ``session-policy``: at the edge, where files, environment, signals and terminals are."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from job.cli import doctor, plan, report, revoke, sessions
from job.cli.options import BAD_CONFIGURATION, database_url, log_directory, policy_file, read_policy, redis_url
from job.cli.reporting import to_text, write_termination_message
from job.logs.identity import Identities
from job.logs.logs import RunLogs, SessionLog, open_logs
from job.startup import garbage_collection_paused, without
from job.telemetry.trace import Trace, Untraced
from job.workers.plan import worker_index
from policy.manifest import InvalidPolicyError, SessionPolicy
from policy.names import DATABASE_URL_ENV, JOB_UID_ENV
from policy.opentelemetry_env import TelemetrySettings
from policy.report import Outcome, RunReport, printable
from stores.model.errors import ConfigurationError, RunError
from stores.waiting.clock import RunClock

if TYPE_CHECKING:
    from job.run import Run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="session-policy-operator")
def main() -> None:
    """Keeps web sessions healthy, as a SessionPolicy says."""


@main.command()
@policy_file
@database_url
@redis_url
@click.option("--dry-run", is_flag=True, help="Find and report everything, change nothing.")
@click.option(
    "--output",
    type=click.Choice(["table", "json"]),
    help="A table for people (the default on a terminal), or the run report as JSON. Without it, JSON logs.",
)
@log_directory
@click.pass_context
def run(
    context: click.Context,
    path: str | None,
    database_url: str | None,
    redis_url: str | None,
    dry_run: bool,
    output: str | None,
    log_directory: str | None,
) -> None:
    """Runs a policy once.

    Exit code: 0 done (also when degraded or skipped), 1 failed and a retry may help, 2 bad configuration.
    """
    output = output or ("table" if sys.stdout.isatty() else None)
    logs = open_logs(
        sys.stderr if output else sys.stdout,
        logging.WARNING if output == "table" else logging.INFO,
        for_people=output == "table",
    )
    index = worker_index(os.environ)
    trace = Untraced() if index else _trace(logs)
    try:
        policy = read_policy(path)
        trace.describe(policy, database_url, redis_url)
        if policy.spec.stores.database and not database_url:
            raise ConfigurationError(f"no database URL: set {DATABASE_URL_ENV} or give --database-url")
    except (InvalidPolicyError, ConfigurationError) as error:
        problems = error.problems if isinstance(error, InvalidPolicyError) else [str(error)]
        if index:
            logs.log.error("invalid configuration", problems=problems)
            context.exit(0)  # the leader finds the same, and reports it
        if output != "table":  # there the report says it all
            logs.log.error("invalid configuration", problems=problems)
        rejected = _rejected("; ".join(problems))
        _deliver(rejected, output)
        with _exporting(trace, rejected, logs):
            pass
        context.exit(BAD_CONFIGURATION)
    files = logs.keep_files(policy, Path(log_directory), index or 0) if log_directory else None
    if index:
        exit_code = _help(index, policy, database_url, redis_url, dry_run, logs)
        if files:
            files.close()
        context.exit(exit_code)
    one = _prepare(policy, database_url, redis_url, dry_run, logs, trace)
    report, exit_code = _execute(one, output)
    # What could hang, or take its time, comes after the report.
    _deliver(report, output)
    with _exporting(trace, report, logs):
        _alert(one, report, logs, Path(log_directory) if log_directory else None)
    if files:
        files.close()
    context.exit(exit_code)


def _trace(logs: RunLogs) -> Trace:
    """The trace of this run; without OpenTelemetry's being imported where there is nowhere to send it."""
    settings = TelemetrySettings.from_environment(os.environ)
    if settings.problems:
        logs.log.warning("telemetry off", because="; ".join(settings.problems))
    if not settings:
        return Untraced()
    try:
        with garbage_collection_paused():
            from job.telemetry.opentelemetry_export import Telemetry

        trace = Telemetry(settings, os.environ)
    except Exception as error:  # whatever is wrong with telemetry, the run goes on
        logs.log.warning("telemetry off", because=f"OpenTelemetry could not be set up ({type(error).__name__})")
        return Untraced()
    if trace.id:
        logs.sink.trace_fields = {"trace_id": trace.id}
    return trace


@contextmanager
def _exporting(trace: Trace, report: RunReport, logs: RunLogs) -> Iterator[None]:
    """Sends the trace and the metrics meanwhile; the report names the trace as soon as a collector has taken it."""
    delivery = trace.finish(report)
    try:
        yield
    finally:
        lost = delivery.wait()
        if trace.id and "traces" not in lost:
            write_termination_message(report.model_copy(update={"trace_id": trace.id}))
        if lost:
            logs.log.warning("telemetry not delivered", lost=lost, because="no collector took it in time")


def _help(
    index: int, policy: SessionPolicy, database_url: str | None, redis_url: str | None, dry_run: bool, logs: RunLogs
) -> int:
    """Helps another process of this run, and returns the exit code. There is one report, and it is not ours."""
    with without("opentelemetry"):
        from job.steps.initialise import Urls
        from job.workers.follow import Follower

    audit = _session_log(policy, logs)
    run_id, log = os.environ.get(JOB_UID_ENV, ""), logs.log.bind(worker=index)
    follower = Follower(policy, Urls(database_url, redis_url), run_id, _clock(policy), log, dry_run, audit)
    return follower.execute(os.environ)


def _session_log(policy: SessionPolicy, logs: RunLogs) -> SessionLog:
    identities = Identities.from_environment(os.environ, logs.log)
    return logs.sessions(identities, tells_deleted=policy.spec.logs.deleted_sessions)


def _clock(policy: SessionPolicy) -> RunClock:
    """The run's clock, which also knows of requests to stop."""
    clock = RunClock(policy.spec.job.timeout_seconds)
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: clock.request_stop())
    return clock


def _prepare(
    policy: SessionPolicy,
    database_url: str | None,
    redis_url: str | None,
    dry_run: bool,
    logs: RunLogs,
    trace: Trace,
) -> Run:
    # Imported here, so that other commands do not pay for database and Redis clients.
    with garbage_collection_paused(), without("opentelemetry"):
        from job.run import Run
        from job.steps.initialise import Urls

    return Run(
        policy,
        Urls(database_url, redis_url),
        os.environ.get(JOB_UID_ENV) or str(uuid.uuid4()),
        _clock(policy),
        logs.log,
        dry_run,
        audit=_session_log(policy, logs),
        trace=trace,
        environment=os.environ,
    )


def _execute(one: Run, output: str | None) -> tuple[RunReport, int]:
    if output != "table":
        return one.execute()
    from job.reports.terminal import Terminal

    with Terminal() as terminal:
        one.progress = terminal
        return one.execute()


def _deliver(report: RunReport, output: str | None) -> None:
    """Puts the report where the controller, a program or a person finds it."""
    write_termination_message(report)
    if output == "json":
        click.echo(to_text(report))
    elif output == "table":
        from job.reports.terminal import print_report

        print_report(report)


def _alert(one: Run, report: RunReport, logs: RunLogs, directory: Path | None) -> None:
    from job.alerts.channels import Channels
    from job.alerts.message import Place
    from job.alerts.stores import memory_stores
    from job.alerts.tell import tell

    metadata = one.policy.metadata
    tell(
        one.problems,
        report,
        one.policy.spec.alerts,
        Channels.from_environment(os.environ),
        Place(metadata.name, metadata.namespace, trace_id=one.trace.id),
        memory_stores(one.policy, one.urls.database, one.urls.redis, directory),
        logs.alerts,
        datetime.now(UTC),
    )


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
@policy_file
@database_url
@click.pass_context
def init(context: click.Context, path: str | None, database_url: str | None) -> None:
    """Creates the tables for statistics, history and settings, and the default session table.

    Tables that exist already are left as they are.
    """
    import sqlalchemy as sa

    from policy.presets import PRESETS, resolve_table
    from policy.stores import Preset
    from stores.sql.connection.connect import create_engine, parse_url, translate
    from stores.sql.schema.tables import create_tables

    try:
        if not database_url:
            raise ConfigurationError(f"no database URL: set {DATABASE_URL_ENV} or give --database-url")
        store = read_policy(path).spec.stores.database if path else None
        if path and store is None:
            raise ConfigurationError("the policy has no stores.database: there is nothing to create")
        table = resolve_table(store) if store else PRESETS[Preset.DEFAULT]
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
        context.exit(error.exit_code if isinstance(error, RunError) else BAD_CONFIGURATION)
    click.echo(f"created {', '.join(created)}" if created else "nothing to create: all tables exist")


@main.command()
@click.argument("plural", required=False)
def crd(plural: str | None) -> None:
    """Prints the CustomResourceDefinitions, or the one of a kind, by its plural."""
    import yaml

    from policy.crd import DEFINITIONS
    from policy.crd import crd as definition

    wanted = [d for d in DEFINITIONS if plural in (None, d.plural)]
    if not wanted:
        raise click.BadParameter(f"there are {', '.join(d.plural for d in DEFINITIONS)}")
    click.echo(yaml.safe_dump_all(map(definition, wanted), sort_keys=False, width=110), nl=False)


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
        from job.demo.demo import run_demo
    except ModuleNotFoundError:
        click.echo("error: the container image has no demo; install session-policy-operator[job,embedded]", err=True)
        context.exit(BAD_CONFIGURATION)

    context.exit(run_demo(Path(directory) if directory else None))


main.add_command(sessions.sessions)
main.add_command(revoke.revoke)
main.add_command(report.report)
main.add_command(plan.plan)
main.add_command(doctor.doctor)


if __name__ == "__main__":
    main()
