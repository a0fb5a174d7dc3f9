"""An embedded MariaDB: the server that is installed on this machine, with data of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from job.demo.servers.errors import EmbeddedServerError, EmbeddedServerUnavailable
from job.demo.servers.process import HOST, EmbeddedServer
from job.demo.servers.unprivileged import reachable_by, unprivileged_account

_USER = "tester"
_SBIN = "/usr/sbin:/usr/local/sbin"  # where packages put servers; an ordinary user's PATH often lacks it
_GREETING_VERSION = 10  # first byte of the first packet's payload: protocol version
_PACKET_HEADER = 4
_HOW_TO_GET = (
    "no MariaDB server found: install mariadb-server (mariadbd and mariadb-install-db on PATH), or name the program "
    "in MARIADBD, or give a database URL instead"
)


class EmbeddedMariaDB(EmbeddedServer):
    """A MariaDB server for one process, reached at `url` as a user with every privilege, without a password.

    Args:
        data_dir: A directory to keep the data in; temporary if not given. Initialised when empty.
        settings: Further `name=value` server settings.
        start_timeout_seconds: How long it may take until it answers.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        start_timeout_seconds: float = 60,
    ) -> None:
        super().__init__("mariadb", data_dir, start_timeout_seconds)
        self._settings = dict(settings or {})
        self._program: Path | None = None

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the database `test`."""
        return f"mysql+pymysql://{_USER}@{HOST}:{self.port}/test"

    @property
    def _temporary(self) -> Path:
        """A server removes the temporary tables of others that share its directory."""
        return self._home_dir / "temporary"

    def _account(self) -> str | None:
        return unprivileged_account()

    def _prepare(self) -> None:
        self._program = server_program()
        account = self._account()
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._temporary.mkdir(exist_ok=True, mode=0o700)
        if account is not None:
            self._home_dir.chmod(0o755)
            shutil.chown(self.data_dir, account)
            shutil.chown(self._temporary, account)
            if not reachable_by(self.data_dir, account):
                raise EmbeddedServerUnavailable(
                    f"MariaDB does not run as root, and the account {account!r} cannot reach {self.data_dir}: choose a "
                    "directory it can reach, or run as an ordinary user"
                )
        if not (self.data_dir / "mysql").is_dir():
            self._initialise(account)

    def _initialise(self, account: str | None) -> None:
        assert self._program is not None
        command = [
            str(_installer(self._program)),
            "--no-defaults",
            f"--datadir={self.data_dir}",
            "--auth-root-authentication-method=normal",
            "--skip-name-resolve",
            "--skip-test-db",
            f"--tmpdir={self._temporary}",
        ]
        result = subprocess.run(command, user=account, cwd="/", capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise EmbeddedServerError(f"mariadb-install-db failed: {(result.stderr or result.stdout).strip()[-1000:]}")
        start_up = self.data_dir / "start-up.sql"
        start_up.write_text(
            "CREATE DATABASE IF NOT EXISTS test CHARACTER SET utf8mb4;\n"
            f"CREATE USER IF NOT EXISTS '{_USER}'@'{HOST}';\n"
            f"GRANT ALL ON *.* TO '{_USER}'@'{HOST}' WITH GRANT OPTION;\n"
        )
        if account is not None:
            shutil.chown(start_up, account)

    def _command(self, port: int) -> list[str]:
        settings = {
            "datadir": str(self.data_dir),
            "tmpdir": str(self._temporary),
            "init-file": str(self.data_dir / "start-up.sql"),
            "bind-address": HOST,
            "port": str(port),
            "socket": str(self.data_dir / "server.sock"),
            "pid-file": str(self.data_dir / "server.pid"),
            "max-connections": "100",
            "innodb-buffer-pool-size": "64M",
            "innodb-flush-log-at-trx-commit": "0",
            "innodb-log-file-size": "32M",
            "performance-schema": "OFF",
        }
        settings |= self._settings
        assert self._program is not None
        # Settings of the machine's own server must not reach ours.
        command = [str(self._program), "--no-defaults", "--skip-name-resolve", "--skip-log-bin"]
        return command + [f"--{name}={value}" for name, value in settings.items()]

    def _is_ready(self, port: int, pid: int) -> bool:
        del pid  # a server that cannot have the port ends by itself
        try:
            with socket.create_connection((HOST, port), timeout=1) as connection:
                greeting = connection.recv(64)
        except OSError:
            return False
        # One that refuses us for now (it is starting, or full) greets with an error instead.
        return len(greeting) > _PACKET_HEADER and greeting[_PACKET_HEADER] == _GREETING_VERSION


def server_program() -> Path:
    """The MariaDB server program: MARIADBD, or `mariadbd` on PATH.

    Raises:
        EmbeddedServerUnavailable: There is none.
    """
    if given := os.environ.get("MARIADBD"):
        program = Path(given)
        if not program.is_file():
            raise EmbeddedServerUnavailable(f"MARIADBD is {given!r}, but there is no such file")
        return program
    if found := shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:{_SBIN}"):
        return Path(found)
    raise EmbeddedServerUnavailable(_HOW_TO_GET)


def _installer(program: Path) -> Path:
    """The program that makes a data directory; it is installed beside the server, or where users' programs are."""
    for directory in (program.parent, program.parent.parent / "bin", program.parent.parent / "scripts"):
        if (directory / "mariadb-install-db").is_file():
            return directory / "mariadb-install-db"
    if found := shutil.which("mariadb-install-db"):
        return Path(found)
    raise EmbeddedServerUnavailable(_HOW_TO_GET)
