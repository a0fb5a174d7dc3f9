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

from job.embedded.process import free_port

JOB_IMAGE = "registry.example/session-policy-job:test"
_PROGRAM = Path(sys.executable).with_name("session-policy-controller")


class ControllerProcess:
    """Starts, stops and kills the ``session-policy-controller`` command."""

    def __init__(self, kubeconfig: Path, log: Path, namespaces: Sequence[str], environment: Mapping[str, str]) -> None:
        self.log_file = log
        self._health_port = free_port()
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "KUBECONFIG": str(kubeconfig),
            "SESSION_POLICY_JOB_IMAGE": JOB_IMAGE,
            "SESSION_POLICY_WATCH_NAMESPACES": ",".join(namespaces),
            "SESSION_POLICY_HEALTH_PORT": str(self._health_port),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until its health endpoint answers."""
        self.spawn()
        deadline = time.monotonic() + 60
        while not self.is_healthy():
            assert self.is_running(), f"the controller ended:\n{self.log()[-3000:]}"
            assert time.monotonic() < deadline, f"the controller is not healthy:\n{self.log()[-3000:]}"
            time.sleep(0.1)

    def spawn(self) -> None:
        """Start it without waiting."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [str(_PROGRAM)], env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self) -> int:
        """Ask it to end, as Kubernetes does, and return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=30)

    def kill(self) -> None:
        """End it at once, wherever it is."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def kill_after(self, seconds: float) -> None:
        """Start it anew, let it work for a while, and end it wherever it is then."""
        self.kill()
        self.spawn()
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=seconds)
        self.kill()

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def is_healthy(self) -> bool:
        """What a probe would see."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health_port}/healthz", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def log(self) -> str:
        """Everything it has logged."""
        return self.log_file.read_text(errors="replace")
