"""``session-policy revoke``: what the Job of a SessionRevocation runs.

The target comes by the environment and by nothing else: other users of a machine see a command's arguments.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import click

from job.cli.options import EXIT_BAD_CONFIGURATION, database_url, log_directory, policy_file, read_policy, redis_url
from job.cli.termination_message import write_termination_message
from job.logs.id_hasher import IdHasher
from job.logs.run_logs import open_logs
from policy.manifest import InvalidResourceError, SessionPolicy, parse_target
from policy.names import LOG_HASH_KEY_ENV, REVOCATION_ENV
from policy.report import printable
from policy.revocation import RevocationReport, RevocationTarget
from stores.model.errors import ConfigurationError
from stores.waiting.clock import RunClock


@click.command()
@policy_file
@database_url
@redis_url
@log_directory
@click.pass_context
def revoke(
    context: click.Context,
    path: str | None,
    database_url: str | None,
    redis_url: str | None,
    log_directory: str | None,
) -> None:
    """Ends the sessions that SESSION_POLICY_REVOCATION names, once; the Job of a SessionRevocation runs it.

    SESSION_POLICY_REVOCATION is {"user": "…"} or {"sessionHash": "s:…"}. By hand, `sessions revoke` is handier.

    Exit code: 0 done (also when there was nothing to end), 1 failed and a retry may help, 2 bad configuration.
    """
    # Here, so that other commands do not pay for database and Redis clients.
    from job.revocation.revocation import Revocation
    from job.steps.initialise import Urls

    logs = open_logs(sys.stdout, logging.INFO)
    try:
        policy, target = read_policy(path), _target()
    except (InvalidResourceError, ConfigurationError) as error:
        problems = error.problems if isinstance(error, InvalidResourceError) else [str(error)]
        logs.log.error("invalid configuration", problems=problems)
        message = printable("; ".join(problems))
        write_termination_message(RevocationReport(reason=ConfigurationError.reason, message=message))
        context.exit(EXIT_BAD_CONFIGURATION)
    files = logs.keep_files(policy, Path(log_directory)) if log_directory else None
    identities = IdHasher.from_environment(os.environ, logs.log)
    report, exit_code = Revocation(
        policy,
        target,
        Urls(database_url, redis_url),
        _clock(policy),
        logs.log,
        audit=logs.sessions(identities),
        identities=identities if os.environ.get(LOG_HASH_KEY_ENV, "").strip() else None,
    ).execute()
    write_termination_message(report)
    if files:
        files.close()
    context.exit(exit_code)


def _target() -> RevocationTarget:
    text = os.environ.get(REVOCATION_ENV)
    if text is None:
        raise ConfigurationError(f"nothing to revoke: {REVOCATION_ENV} is not set")
    return parse_target(text)


def _clock(policy: SessionPolicy) -> RunClock:
    clock = RunClock(policy.spec.job.timeout_seconds)
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: clock.request_stop())
    return clock
