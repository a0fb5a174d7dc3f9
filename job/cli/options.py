"""Shared by the commands: options, reading the policy, and error handling."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from policy.exit_codes import EXIT_BAD_CONFIGURATION, EXIT_FAILED
from policy.manifest import InvalidPolicyError, InvalidResourceError, SessionPolicy, load_policy
from policy.names import DATABASE_URL_ENV, LOG_DIRECTORY_ENV, REDIS_URL_ENV, SPEC_ENV
from stores.model.errors import ConfigurationError, LockHeldError, RunError, StopRequestedError
from stores.waiting.clock import RunClock

P = ParamSpec("P")
T = TypeVar("T")

policy_file = click.option(
    "-f",
    "--file",
    "path",
    type=click.Path(),
    help="The policy's manifest, as for kubectl apply; - for standard input.",
)
database_url = click.option(
    "--database-url",
    envvar=DATABASE_URL_ENV,
    show_envvar=True,
    help="The database, e.g. postgresql://user:password@host/database.",
)
redis_url = click.option(
    "--redis-url", envvar=REDIS_URL_ENV, show_envvar=True, help="Redis, e.g. redis://:password@host:6379/0."
)
log_directory = click.option(
    "--log-directory",
    type=click.Path(file_okay=False),
    envvar=LOG_DIRECTORY_ENV,
    show_envvar=True,
    help="Also write logs to files, under batch/, session/ and alerts/ of this directory.",
)
output = click.option(
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table, or one JSON object.",
)


def read_policy(path: str | None) -> SessionPolicy:
    """The policy from a file, from standard input (``-``) or, without a path, from the environment.

    Raises:
        ConfigurationError: there is none, or it cannot be read.
        InvalidPolicyError: it is invalid.
    """
    if path is None:
        text = os.environ.get(SPEC_ENV)
        if text is None:
            raise ConfigurationError(f"no policy: pass --file, or set {SPEC_ENV} to its manifest")
    elif path == "-":
        text = sys.stdin.read()
    else:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigurationError(f"the policy {path} cannot be read: {reason}") from None
    return load_policy(text)


def require_database_url(url: str | None) -> str:
    """The database URL.

    Raises:
        ConfigurationError: there is none.
    """
    if not url:
        raise ConfigurationError(f"no database URL: set {DATABASE_URL_ENV} or pass --database-url")
    return url


def stoppable_clock(policy: SessionPolicy) -> RunClock:
    """The clock of a run, with the policy's time limit; SIGTERM and SIGINT ask the run to stop."""
    clock = RunClock(policy.spec.job.timeout_seconds)
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: clock.request_stop())
    return clock


def problems_of(error: InvalidResourceError | ConfigurationError) -> list[str]:
    """What is wrong with the configuration, one line per problem."""
    return list(error.problems) if isinstance(error, InvalidResourceError) else [str(error)]


def prints_errors(command: Callable[P, T]) -> Callable[P, T]:
    """Decorates a command: its errors become lines on standard error and an exit code."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except InvalidPolicyError as error:
            _exit(problems_of(error), EXIT_BAD_CONFIGURATION)
        except LockHeldError as error:
            _exit([str(error) or "a run holds the lock on these sessions; try again when it has finished"], EXIT_FAILED)
        except StopRequestedError:
            _exit(["stopped by a signal, or at the time limit (job.timeoutSeconds)"], EXIT_FAILED)
        except RunError as error:
            _exit([str(error)], error.exit_code)
        raise AssertionError("unreachable")

    return wrapped


def _exit(problems: list[str], code: int) -> Any:
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    sys.exit(code)
