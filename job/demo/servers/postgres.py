"""An embedded PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from job.demo.servers.errors import EmbeddedServerError, EmbeddedServerUnavailable
from job.demo.servers.process import HOST, EmbeddedServer
from job.demo.servers.unprivileged import WHEELS, copy_programs, reachable_by, unprivileged_account

_USER = "postgres"
_READY_LINE = 7  # of postmaster.pid, counted from 0: "starting", "ready", ...
_HOW_TO_GET = (
    "no PostgreSQL server found: pip install 'session-policy-operator[job,embedded]', or install PostgreSQL and name "
    "its program directory in POSTGRES_BIN_DIR"
)


class EmbeddedPostgres(EmbeddedServer):
    """A PostgreSQL server for one process, reached at `url` as its superuser, without a password.

    Args:
        data_dir: A directory to keep the cluster in; temporary if not given. Initialised when empty.
        durable: With False a crash of the *machine* may lose data (`fsync` off), which tests can live with.
            A crash of the server alone never loses a committed transaction.
        settings: Further `name=value` server settings.
        start_timeout_seconds: How long it may take until it answers.
    """

    stop_signal = signal.SIGINT  # "fast": ends open sessions, then shuts down cleanly

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
        start_timeout_seconds: float = 60,
    ) -> None:
        super().__init__("postgres", data_dir, start_timeout_seconds)
        self._durable = durable
        self._settings = dict(settings or {})
        self._bin: Path | None = None

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the database `postgres`."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """SQLAlchemy URL of a database of this server."""
        return f"postgresql+psycopg://{_USER}@{HOST}:{self.port}/{database}"

    def _account(self) -> str | None:
        return unprivileged_account()

    def _prepare(self) -> None:
        self._bin = runnable_bin_dir()
        account = self._account()
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if account is not None:
            self._home_dir.chmod(0o755)
            shutil.chown(self.data_dir, account)
            if not reachable_by(self.data_dir, account):
                raise EmbeddedServerUnavailable(
                    f"PostgreSQL does not run as root, and the account {account!r} cannot reach "
                    f"{self.data_dir}: choose a directory it can reach, or run as an ordinary user"
                )
        if not (self.data_dir / "PG_VERSION").exists():
            self._initialise(account)

    def _initialise(self, account: str | None) -> None:
        command = [str(self._program("initdb")), "-D", str(self.data_dir), "-U", _USER, "-A", "trust", "-E", "UTF8"]
        command += ["--no-locale", "--no-sync"]
        result = subprocess.run(  # noqa: S603 - the command is ours
            command, user=account, cwd="/", capture_output=True, text=True, check=False
        )
        if result.returncode != 0:
            raise EmbeddedServerError(f"initdb failed: {result.stderr.strip()[-1000:]}")

    def _program(self, name: str) -> Path:
        assert self._bin is not None
        return self._bin / name

    def _command(self, port: int) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": str(port),
            "unix_socket_directories": "",
            "max_connections": "100",
            "logging_collector": "off",
        }
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        settings |= self._settings
        command = [str(self._program("postgres")), "-D", str(self.data_dir)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _is_ready(self, port: int, pid: int) -> bool:
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        # After a crash the file of the dead server is still there: only ours counts.
        return len(lines) > _READY_LINE and lines[0] == str(pid) and lines[_READY_LINE].strip() == "ready"


def bin_dir() -> Path:
    """The directory of the PostgreSQL programs: POSTGRES_BIN_DIR, the wheel's, or that of `postgres` on PATH.

    Raises:
        EmbeddedServerUnavailable: There is none.
    """
    if given := os.environ.get("POSTGRES_BIN_DIR"):
        directory = Path(given)
        if not (directory / "postgres").is_file():
            raise EmbeddedServerUnavailable(f"POSTGRES_BIN_DIR is {given!r}, but there is no 'postgres' in it")
        return directory
    for wheel in WHEELS:
        spec = find_spec(wheel)
        for root in (spec.submodule_search_locations or []) if spec else []:
            directory = Path(root) / "pginstall" / "bin"
            if (directory / "postgres").is_file():
                return directory
    if found := shutil.which("postgres"):
        directory = Path(found).resolve().parent
        if (directory / "initdb").is_file():
            return directory
    raise EmbeddedServerUnavailable(_HOW_TO_GET)


@cache
def runnable_bin_dir() -> Path:
    """`bin_dir`, or a copy of it where the unprivileged account can run it."""
    directory = bin_dir()
    account = unprivileged_account()
    if account is None or reachable_by(directory / "postgres", account):
        return directory
    return copy_programs(directory)
