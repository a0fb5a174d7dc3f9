"""What the workers of one test run share: a control plane, and work that one of them does for all."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.controlplane import ControlPlane


def once(path: Path, make: Callable[[], str]) -> str:
    """What `make` returns, called by one process alone; the others wait for it and read it from the file."""
    with _lock(path.with_name(f"{path.name}.lock"), fcntl.LOCK_EX):
        if not path.exists():
            path.write_text(make())
        return path.read_text()


class SharedControlPlane:
    """One control plane for all processes that name the same directory.

    The first that uses it starts it, and ends it when nobody uses it any more: `stop` waits for that. If that process
    dies, so does the control plane, and the next to ask starts another.
    """

    def __init__(self, directory: Path) -> None:
        self._users = directory / "control-plane.users"
        self._state = directory / "control-plane.json"
        self._own: ControlPlane | None = None

    @contextmanager
    def use(self) -> Iterator[ControlPlane]:
        """The running control plane, which nobody may stop or freeze.

        Raises:
            ControlPlaneUnavailable: A program is missing.
            ControlPlaneError: A component did not come up.
        """
        with _lock(self._users, fcntl.LOCK_SH):
            with _lock(self._state.with_suffix(".lock"), fcntl.LOCK_EX):
                if not self._is_running():
                    self._start()
                state = json.loads(self._state.read_text())
            yield ControlPlane.shared(Path(state["directory"]), api_port=state["api"], etcd_port=state["etcd"])

    def stop(self) -> None:
        """End what this process has started, once no process uses it."""
        if self._own is None:
            return
        with _lock(self._users, fcntl.LOCK_EX):
            self._state.unlink(missing_ok=True)
            self._own.stop()
            self._own = None

    def _start(self) -> None:
        self._own = plane = ControlPlane.start()
        state = {"directory": str(plane.directory), "api": plane.api_port, "etcd": plane.etcd_port, "pid": os.getpid()}
        self._state.write_text(json.dumps(state))

    def _is_running(self) -> bool:
        try:
            os.kill(json.loads(self._state.read_text())["pid"], 0)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return True


@contextmanager
def _lock(path: Path, how: int) -> Iterator[None]:
    """Hold a lock between processes; the system releases that of a process which has died."""
    with path.open("a") as file:
        fcntl.flock(file, how)
        yield
