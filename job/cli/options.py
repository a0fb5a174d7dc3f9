"""What several commands have in common: options, the policy, and how they fail."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from policy.manifest import InvalidPolicyError, SessionPolicy, load_policy
from policy.names import DATABASE_URL_ENV, LOG_DIRECTORY_ENV, REDIS_URL_ENV, SPEC_ENV
from stores.model.errors import ConfigurationError, LockHeldError, RunError, StopRequestedError

P = ParamSpec("P")
T = TypeVar("T")

EXIT_BAD_CONFIGURATION = 2

policy_file = click.option(
    "-f",
    "--file",
    "path",
    type=click.Path(),
    help="The policy: the manifest that kubectl apply takes; - for standard input.",
)
database_url = click.option(
    "--database-url",
    envvar=DATABASE_URL_ENV,
    show_envvar=True,
    help="Where the sessions are, e.g. postgresql://user:password@host/database.",
)
redis_url = click.option(
    "--redis-url", envvar=REDIS_URL_ENV, show_envvar=True, help="Redis, e.g. redis://:password@host:6379/0."
)
log_directory = click.option(
    "--log-directory",
    type=click.Path(file_okay=False),
    envvar=LOG_DIRECTORY_ENV,
    show_envvar=True,
    help="Where logs are kept as files, too: under batch/, session/ and alerts/.",
)
output = click.option(
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people, or one JSON object.",
)


def read_policy(path: str | None) -> SessionPolicy:
    """The policy in a file, on standard input (``-``) or, where no file is named, in the environment.

    Raises:
        ConfigurationError: there is none, or it cannot be read.
        InvalidPolicyError: it is invalid.
    """
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


def prints_errors(command: Callable[P, T]) -> Callable[P, T]:
    """Turns our errors into one line on standard error and the exit code that belongs to them."""

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except InvalidPolicyError as error:
            _end([f"{problem}" for problem in error.problems], EXIT_BAD_CONFIGURATION)
        except LockHeldError as error:
            _end([str(error) or "a run is at work on this session table; try again when it is done"], 1)
        except StopRequestedError:
            _end(["it took too long and was stopped"], 1)
        except RunError as error:
            _end([str(error)], error.exit_code)
        raise AssertionError("unreachable")

    return guarded


def _end(problems: list[str], code: int) -> Any:
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    sys.exit(code)
