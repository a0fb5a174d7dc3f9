"""The controller as its users run it: a process with an environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.patience import PATIENCE_SECONDS
from tests.support.ports import free_port

JOB_IMAGE = "registry.example/session-policy-job:test"
_PROGRAM = Path(sys.executable).with_name("session-policy-controller")


class ControllerProcess:
    """Starts, stops and kills the ``session-policy-controller`` command."""

    def __init__(self, kubeconfig: Path, log: Path, namespaces: Sequence[str], environment: Mapping[str, str]) -> None:
        self.log_file = log
        self.http_port = free_port()
        self._url = f"http://127.0.0.1:{self.http_port}"
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),  # the same code as the tests import
            "KUBECONFIG": str(kubeconfig),
            "SESSION_POLICY_JOB_IMAGE": JOB_IMAGE,
            "SESSION_POLICY_WATCH_NAMESPACES": ",".join(namespaces),
            "SESSION_POLICY_HTTP_PORT": str(self.http_port),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it has reached the API server."""
        self.spawn()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.is_ready():
            assert self.is_running(), f"the controller ended:\n{self.log()[-3000:]}"
            assert time.monotonic() < deadline, f"the controller is not ready:\n{self.log()[-3000:]}"
            time.sleep(0.1)

    def spawn(self) -> None:
        """Start it without waiting."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [str(_PROGRAM)], env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self) -> int:
        """Ask it to end, as Kubernetes does, and return its exit code."""
        self._signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended, and return its exit code.

        Kubernetes waits for 30 seconds after SIGTERM; a machine that is busy with other tests is given twice as long.
        """
        assert self._process is not None
        return self._process.wait(timeout=60)

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does, as a virtual machine that is suspended."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, wherever it is."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def kill_after(self, seconds: float) -> None:
        """Start it anew, let it work for a while, and end it wherever it is then."""
        self.kill()
        self.spawn()
        self.work_for(seconds)
        self.kill()

    def work_for(self, seconds: float) -> None:
        """Let it work for a while."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=seconds)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def is_healthy(self) -> bool:
        """What a liveness probe would see."""
        return self._answers("/healthz")

    def is_ready(self) -> bool:
        """What a readiness probe would see."""
        return self._answers("/readyz")

    def is_leader(self) -> bool:
        """Whether it says that it may work."""
        return self.is_running() and "\nsession_policy_controller_leader 1.0\n" in self.metrics()

    def metrics(self, accept: str = "*/*") -> str:
        """What Prometheus would read; empty if there is no answer."""
        request = urllib.request.Request(f"{self._url}/metrics", headers={"Accept": accept})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                body: bytes = response.read()
                return body.decode()
        except (urllib.error.URLError, OSError):
            return ""

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(self._url + path, timeout=30):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def log(self) -> str:
        """Everything it has logged."""
        return self.log_file.read_text(errors="replace")
