"""One server process: started on a free loopback port, waited for, stopped, killed, restarted."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

from job.demo.servers.errors import EmbeddedServerError
from job.demo.servers.lifeline import Lifeline

HOST = "127.0.0.1"
_PORT_ATTEMPTS = 5
_LOG_TAIL_BYTES = 2000
_POLL_SECONDS = 0.02
_PORTS = range(20_000, 32_000)
_port_numbers = count(os.getpid() * 101)


class Startable(ABC):
    """Something that runs from `start` to `stop`, or as long as a ``with`` block lasts."""

    @abstractmethod
    def start(self) -> Self:
        """Start it and wait until it answers."""

    @abstractmethod
    def stop(self) -> None:
        """End it. Does nothing if it does not run."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class EmbeddedServer(Startable):
    """A server process with a data directory.

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
        self._lifeline: Lifeline | None = None
        self._owner_pid = os.getpid()

    @property
    def port(self) -> int:
        """The loopback port, the same across `restart`. There is none before the first `start`."""
        if self._port is None:
            raise EmbeddedServerError(f"{self.name} was not started yet")
        return self._port

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL clients connect to."""

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

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
        if self.running:
            return self
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix=f"embedded-{self.name}-"))
            atexit.register(self._stop_at_exit)
        try:
            self._prepare()
            self._spawn_on_free_port()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server cleanly and remove what is temporary. Does nothing if there is nothing to do."""
        if self._process is not None:
            self._end(self._process)
        self._release_lifeline()
        self._process = None
        if self._home is not None:
            atexit.unregister(self._stop_at_exit)
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def kill(self) -> None:
        """End the server as a crash would: SIGKILL to it and all its children, nothing flushed, data kept."""
        if self._process is None:
            return
        try:
            family = [psutil.Process(self._process.pid)]
            family += family[0].children(recursive=True)
        except psutil.NoSuchProcess:
            family = []
        for member in family:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family[1:], timeout=10)
        self._process.wait()
        self._release_lifeline()
        self._process = None

    def restart(self) -> Self:
        """Stop the server cleanly if it runs, and start it again on the same port and data.

        Raises:
            EmbeddedServerError: As `start`.
        """
        if self._process is not None:
            self._end(self._process)
            self._release_lifeline()
            self._process = None
        return self.start()

    def log_tail(self) -> str:
        """The last lines the server wrote, for error messages."""
        try:
            return self._log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        except OSError:
            return ""

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

    # How it is done.

    @property
    def _home_dir(self) -> Path:
        if self._home is None:
            raise EmbeddedServerError(f"{self.name} was not started yet")
        return self._home

    @property
    def _log_path(self) -> Path:
        return self._home_dir / "server.log"

    def _spawn_on_free_port(self) -> None:
        if self._port is not None:  # a restart: clients know this port
            return self._spawn(self._port)
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            port = free_port()
            try:
                self._spawn(port)
            except EmbeddedServerError:
                # Another process may have taken the port between our look and the server's bind.
                if attempt < _PORT_ATTEMPTS and "address already in use" in self.log_tail().lower():
                    continue
                raise
            self._port = port
            return None
        return None

    def _spawn(self, port: int) -> None:
        with self._log_path.open("wb") as log:
            self._process = process = self._popen(self._command(port), log)
        self._lifeline = Lifeline(process.pid, self.stop_signal, self._home_dir)
        deadline = time.monotonic() + self._start_timeout_seconds
        while not self._is_ready(port, process.pid):
            if process.poll() is not None:
                self._release_lifeline()
                self._process = None
                raise EmbeddedServerError(
                    f"{self.name} ended with code {process.returncode} while starting:\n{self.log_tail()}"
                )
            if time.monotonic() > deadline:
                self.kill()
                raise EmbeddedServerError(
                    f"{self.name} did not answer within {self._start_timeout_seconds:g} s:\n{self.log_tail()}"
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
            group=None if account is None else primary_group(account),
            extra_groups=None if account is None else [],
            start_new_session=True,
        )

    def _release_lifeline(self) -> None:
        if self._lifeline is not None:
            self._lifeline.release()
            self._lifeline = None

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(self.stop_signal)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.kill()

    def _stop_at_exit(self) -> None:
        if os.getpid() == self._owner_pid:  # a forked child must not end its parent's server
            self.stop()


def free_port(another: int = 0) -> int:
    """A loopback port nobody listened on a moment ago.

    It lies below those that systems give to outgoing connections: none of these can have it while its server is
    restarted. Processes begin at places of their own, so that two of them do not find the same one free.

    Args:
        another: the port so far above it is to be free as well; 0 for none.
    """
    for number in _port_numbers:
        port = _PORTS[number % len(_PORTS)]
        with suppress(OSError):
            for each in {port, port + another}:
                with socket.socket() as probe:
                    probe.bind((HOST, each))
            return port
    raise AssertionError("numbers do not end")


def primary_group(account: str) -> int:
    """The number of an account's own group."""
    import pwd  # noqa: PLC0415 - POSIX only, and needed as root only

    return pwd.getpwnam(account).pw_gid
