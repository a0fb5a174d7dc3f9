"""``session-policy run``: runs a policy once."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from job.cli.options import (
    database_url,
    log_directory,
    policy_file,
    problems_of,
    read_policy,
    redis_url,
    require_database_url,
    stoppable_clock,
)
from job.cli.termination_message import to_text, write_termination_message
from job.logs.id_hasher import IdHasher
from job.logs.run_logs import HashedSessionLog, RunLogs, open_logs
from job.startup import garbage_collection_paused, without
from job.telemetry.trace import NoTrace, Trace
from job.workers.parallelism import worker_index
from policy.exit_codes import EXIT_BAD_CONFIGURATION, EXIT_DONE
from policy.manifest import InvalidPolicyError, SessionPolicy
from policy.names import JOB_UID_ENV
from policy.opentelemetry_env import TelemetrySettings
from policy.report import Outcome, RunReport, printable
from stores.model.errors import ConfigurationError

if TYPE_CHECKING:
    from job.run import Run


@dataclass(frozen=True, slots=True)
class _Options:
    """The options of the command, and what depends on them.

    Attributes:
        database_url: as given.
        redis_url: as given.
        dry_run: as given.
        output: table, json, or None for JSON logs.
        logs: of the process.
    """

    database_url: str | None
    redis_url: str | None
    dry_run: bool
    output: str | None
    logs: RunLogs


@click.command()
@policy_file
@database_url
@redis_url
@click.option("--dry-run", is_flag=True, help="Find and report everything, change nothing.")
@click.option(
    "--output",
    type=click.Choice(["table", "json"]),
    help="A table (the default on a terminal), or the run report as JSON. Without it, JSON logs.",
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
    options = _Options(database_url, redis_url, dry_run, output, logs)
    worker = worker_index(os.environ)
    trace = NoTrace() if worker else _start_trace(logs)
    try:
        policy = read_policy(path)
        trace.set_policy(policy, database_url, redis_url)
        if policy.spec.stores.database:
            require_database_url(database_url)
    except (InvalidPolicyError, ConfigurationError) as error:
        context.exit(_reject(problems_of(error), worker, options, trace))
    directory = Path(log_directory) if log_directory else None
    files = logs.write_files(policy, directory, worker or 0) if directory else None
    exit_code = _help(worker, policy, options) if worker else _lead(policy, options, trace, directory)
    if files:
        files.close()
    context.exit(exit_code)


def _reject(problems: list[str], worker: int | None, options: _Options, trace: Trace) -> int:
    """Reports that the configuration is invalid, and returns the exit code."""
    if worker or options.output != "table":  # the table shows the report's message, which is the same
        options.logs.log.error("invalid configuration", problems=problems)
    if worker:
        return EXIT_DONE  # the leader finds the same problems and reports them
    now = datetime.now(UTC)
    report = RunReport(
        outcome=Outcome.FAILED,
        reason=ConfigurationError.reason,
        message=printable("; ".join(problems)),
        start_time=now,
        completion_time=now,
        duration_seconds=0,
    )
    _write(report, options.output)
    with _exporting(trace, report, options.logs):
        pass
    return EXIT_BAD_CONFIGURATION


def _lead(policy: SessionPolicy, options: _Options, trace: Trace, log_directory: Path | None) -> int:
    """Runs the policy, reports, sends alerts, and returns the exit code."""
    one = _prepare(policy, options, trace)
    report, exit_code = _execute(one, options.output)
    # The report first: alerts and telemetry may hang.
    _write(report, options.output)
    with _exporting(trace, report, options.logs):
        _send_alerts(one, report, options.logs, log_directory)
    return exit_code


def _help(worker: int, policy: SessionPolicy, options: _Options) -> int:
    """Helps the leader of this run as a worker, and returns the exit code. Only the leader writes a report."""
    with without("opentelemetry"):
        from job.steps.initialise import Urls
        from job.workers.worker import Worker

    audit = _session_log(policy, options.logs)
    run_id, log = os.environ.get(JOB_UID_ENV, ""), options.logs.log.bind(worker=worker)
    urls = Urls(options.database_url, options.redis_url)
    return Worker(policy, urls, run_id, stoppable_clock(policy), log, options.dry_run, audit).execute(os.environ)


def _prepare(policy: SessionPolicy, options: _Options, trace: Trace) -> Run:
    # Imported here, so that other commands do not load database and Redis clients. The Redis client would import
    # OpenTelemetry for metrics of its own, which are off, and that costs CPU at each start.
    with garbage_collection_paused(), without("opentelemetry"):
        from job.run import Run
        from job.steps.initialise import Urls

    return Run(
        policy,
        Urls(options.database_url, options.redis_url),
        os.environ.get(JOB_UID_ENV) or str(uuid.uuid4()),
        stoppable_clock(policy),
        options.logs.log,
        options.dry_run,
        audit=_session_log(policy, options.logs),
        trace=trace,
        environment=os.environ,
    )


def _session_log(policy: SessionPolicy, logs: RunLogs) -> HashedSessionLog:
    hasher = IdHasher.from_environment(os.environ, logs.log)
    return logs.sessions(hasher, tells_deleted=policy.spec.logs.deleted_sessions)


def _execute(one: Run, output: str | None) -> tuple[RunReport, int]:
    if output != "table":
        return one.execute()
    from job.reports.terminal_output import TerminalProgress

    with TerminalProgress() as progress:
        one.progress = progress
        return one.execute()


def _write(report: RunReport, output: str | None) -> None:
    """Writes the report: as the termination message, and to standard output if asked."""
    write_termination_message(report)
    if output == "json":
        click.echo(to_text(report))
    elif output == "table":
        from job.reports.terminal_output import print_report

        print_report(report)


def _send_alerts(one: Run, report: RunReport, logs: RunLogs, log_directory: Path | None) -> None:
    from job.alerts.alert_memory import AlertMemory
    from job.alerts.channels import Channels
    from job.alerts.message import AlertSource
    from job.alerts.notify import notify

    metadata = one.policy.metadata
    notify(
        one.problems,
        report,
        one.policy.spec.alerts,
        Channels.from_environment(os.environ),
        AlertSource(metadata.name, metadata.namespace, trace_id=one.trace.id),
        AlertMemory.of_policy(one.policy, one.urls.database, one.urls.redis, log_directory),
        logs.alerts,
        datetime.now(UTC),
    )


def _start_trace(logs: RunLogs) -> Trace:
    """Starts the trace of this run. OpenTelemetry is imported only if an endpoint is set."""
    settings = TelemetrySettings.from_environment(os.environ)
    if settings.problems:
        logs.log.warning("telemetry disabled", because="; ".join(settings.problems))
    if not settings:
        return NoTrace()
    try:
        with garbage_collection_paused():
            from job.telemetry.opentelemetry_export import OpenTelemetryTrace

        trace = OpenTelemetryTrace(settings, os.environ)
    except Exception as error:  # whatever is wrong with telemetry, the run goes on
        logs.log.warning("telemetry disabled", because=f"OpenTelemetry could not be set up ({type(error).__name__})")
        return NoTrace()
    if trace.id:
        logs.sink.trace_fields = {"trace_id": trace.id}
    return trace


@contextmanager
def _exporting(trace: Trace, report: RunReport, logs: RunLogs) -> Iterator[None]:
    """Exports trace and metrics in the background; once a collector has the trace, its id is added to the report."""
    export = trace.finish(report)
    try:
        yield
    finally:
        lost = export.wait()
        if trace.id and "traces" not in lost:
            write_termination_message(report.model_copy(update={"trace_id": trace.id}))
        if lost:
            logs.log.warning(
                "telemetry export failed", lost=lost, because="no collector accepted it in time; check the endpoint"
            )
