"""``session-policy revoke``: what the Job of a SessionRevocation runs.

The target is taken only from the environment: other users of a machine can see a command's arguments.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click

from job.cli.options import (
    database_url,
    log_directory,
    policy_file,
    problems_of,
    read_policy,
    redis_url,
    stoppable_clock,
)
from job.cli.termination_message import write_termination_message
from job.logs.id_hasher import IdHasher
from job.logs.run_logs import open_logs
from policy.exit_codes import EXIT_BAD_CONFIGURATION
from policy.manifest import InvalidResourceError, parse_target
from policy.names import LOG_HASH_KEY_ENV, REVOCATION_ENV
from policy.report import printable
from policy.revocation import RevocationReport, RevocationTarget
from stores.model.errors import ConfigurationError


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
    """Deletes the sessions that SESSION_POLICY_REVOCATION names; run by the Job of a SessionRevocation.

    SESSION_POLICY_REVOCATION is {"user": "…"} or {"sessionHash": "s:…"}. By hand, use `sessions revoke`.

    Exit code: 0 done (also when there was no session), 1 failed and a retry may help, 2 bad configuration.
    """
    # Imported here, so that other commands do not load database and Redis clients.
    from job.revocation.revocation import Revocation
    from job.steps.initialise import Urls

    logs = open_logs(sys.stdout, logging.INFO)
    try:
        policy, target = read_policy(path), _target()
    except (InvalidResourceError, ConfigurationError) as error:
        problems = problems_of(error)
        logs.log.error("invalid configuration", problems=problems)
        message = printable("; ".join(problems))
        write_termination_message(RevocationReport(reason=ConfigurationError.reason, message=message))
        context.exit(EXIT_BAD_CONFIGURATION)
    files = logs.write_files(policy, Path(log_directory)) if log_directory else None
    hasher = IdHasher.from_environment(os.environ, logs.log)
    report, exit_code = Revocation(
        policy,
        target,
        Urls(database_url, redis_url),
        stoppable_clock(policy),
        logs.log,
        audit=logs.sessions(hasher),
        identities=hasher if os.environ.get(LOG_HASH_KEY_ENV, "").strip() else None,
    ).execute()
    write_termination_message(report)
    if files:
        files.close()
    context.exit(exit_code)


def _target() -> RevocationTarget:
    text = os.environ.get(REVOCATION_ENV)
    if text is None:
        raise ConfigurationError(f"{REVOCATION_ENV} is not set; it names the user or session to revoke")
    return parse_target(text)
