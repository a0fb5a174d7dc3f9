"""One server process: started on a free loopback port, waited for, and stopped."""

from __future__ import annotations

import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from job.demo.servers.errors import EmbeddedServerError
from job.demo.servers.watchdog import Watchdog

HOST = "127.0.0.1"
_PORT_ATTEMPTS = 5
_LOG_TAIL_BYTES = 2000
_POLL_SECONDS = 0.02
_STOP_SECONDS = 15


class EmbeddedServer(ABC):
    """A server process with a data directory; runs from `start` to `stop`, or as long as a ``with`` block lasts.

    Args:
        name: The program's name, for messages.
        data_dir: Kept and reused if given; otherwise a temporary directory that goes with `stop`.
        start_timeout_seconds: How long the server may take until it answers.
    """

    #: Ends the server quickly and cleanly.
    stop_signal = signal.SIGTERM

    def __init__(self, name: str, data_dir: Path | None, start_timeout_seconds: float) -> None:
        self.name = name
        self._given_data_dir = data_dir
        self._start_timeout_seconds = start_timeout_seconds
        self._home: Path | None = None
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None

    @property
    def port(self) -> int:
        """The loopback port. There is none before the first `start`."""
        if self._port is None:
            raise EmbeddedServerError(f"{self.name} was not started yet")
        return self._port

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL clients connect to."""

    @property
    def data_dir(self) -> Path:
        """Where the server keeps its data."""
        return self._given_data_dir or self._home_dir / "data"

    def start(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            EmbeddedServerUnavailable: The program is not there or may not run here.
            EmbeddedServerError: It ended, or did not answer in time.
        """
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix=f"embedded-{self.name}-"))
        try:
            self._prepare()
            self._run_on_free_port()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server cleanly and remove what is temporary. Does nothing if there is nothing to do."""
        self._end()
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # What a server must tell.

    @abstractmethod
    def _prepare(self) -> None:
        """Make the data directory ready; called before every start."""

    @abstractmethod
    def _command(self, port: int) -> list[str]:
        """The command that runs the server in the foreground."""

    @abstractmethod
    def _is_ready(self, port: int, pid: int) -> bool:
        """Whether the server with this pid accepts commands on this port."""

    def _account(self) -> str | None:
        """The account to run as, or None for the present one."""
        return None

    def _choose_port(self) -> int:
        """A port that nobody listened on a moment ago."""
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
            return port

    # How it is done.

    @property
    def _home_dir(self) -> Path:
        if self._home is None:
            raise EmbeddedServerError(f"{self.name} was not started yet")
        return self._home

    @property
    def _log_path(self) -> Path:
        return self._home_dir / "server.log"

    def _run_on_free_port(self) -> None:
        for attempts_left in reversed(range(_PORT_ATTEMPTS)):
            port = self._choose_port()
            try:
                self._run(port)
            except EmbeddedServerError:
                # Another process may have taken the port between our look and the server's bind.
                if not attempts_left or "address already in use" not in self._log_tail().lower():
                    raise
                self._end()
            else:
                self._port = port
                break

    def _run(self, port: int) -> None:
        with self._log_path.open("wb") as log:
            self._process = process = self._popen(self._command(port), log)
        self._watchdog = Watchdog(process.pid, self.stop_signal, self._home_dir)
        deadline = time.monotonic() + self._start_timeout_seconds
        while not self._is_ready(port, process.pid):
            if process.poll() is not None:
                raise EmbeddedServerError(
                    f"{self.name} ended with code {process.returncode} while starting:\n{self._log_tail()}"
                )
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"{self.name} did not answer within {self._start_timeout_seconds:g} s:\n{self._log_tail()}"
                )
            time.sleep(_POLL_SECONDS)

    def _popen(self, command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        account = self._account()
        # Own session: Ctrl-C in the terminal reaches the owner alone, which then stops the server in order.
        return subprocess.Popen(  # noqa: S603 - the command is ours
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=self._home_dir,
            user=account,
            group=None if account is None else pwd.getpwnam(account).pw_gid,
            extra_groups=None if account is None else [],
            start_new_session=True,
        )

    def _end(self) -> None:
        """End the process, if there is one, and keep its data."""
        if self._process is not None:
            self._process.send_signal(self.stop_signal)
            try:
                self._process.wait(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._watchdog is not None:
            self._watchdog.release()
            self._watchdog = None

    def _log_tail(self) -> str:
        """The last lines the server wrote, for error messages."""
        try:
            return self._log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        except OSError:
            return ""
