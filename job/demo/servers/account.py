"""The account a server runs as when we are root: PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

from job.demo.servers.errors import EmbeddedServerUnavailable

_CANDIDATES = ("nobody", "postgres", "daemon")


def unprivileged_account() -> str | None:
    """An account without rights to run a server as, or None when we are not root ourselves.

    Raises:
        EmbeddedServerUnavailable: We are root and this machine has no such account.
    """
    if os.geteuid() != 0:
        return None
    for name in _CANDIDATES:
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise EmbeddedServerUnavailable(
        "PostgreSQL does not run as root, and there is no account to run it as "
        f"(tried {', '.join(_CANDIDATES)}): run as an ordinary user"
    )


def reachable_by(path: Path, account: str) -> bool:
    """Whether the account can enter this directory, or execute this file."""
    check = ["/bin/sh", "-c", 'test -x "$1"', "sh", str(path)]
    result = subprocess.run(check, user=account, cwd="/", capture_output=True, check=False)  # noqa: S603 - ours
    return result.returncode == 0
