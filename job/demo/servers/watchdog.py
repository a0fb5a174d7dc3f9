"""Ends a server when the process that owns it is gone, however that died."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

# Reads from a pipe whose other end only the owner holds. A line means that the server was stopped properly;
# end of file means that the owner is gone, and the server must follow. A shell does this on every POSIX
# system, unlike PR_SET_PDEATHSIG, which is Linux only and fires when the *thread* that started the server
# ends.
_WATCH = """
read -r _ && exit
kill -s "$2" "$1"
[ -n "$3" ] || exit
for _ in 1 2 3 4 5 6 7 8 9 10; do
  kill -0 "$1" 2>/dev/null || break
  sleep 1
done
rm -rf -- "$3"
"""


class Watchdog:
    """A process that watches over one server and its owner.

    Args:
        pid: The server.
        how: The signal it gets when the owner is gone.
        directory: Removed after the server, if given.
    """

    def __init__(self, pid: int, how: signal.Signals, directory: Path | None = None) -> None:
        arguments = [str(pid), how.name.removeprefix("SIG"), str(directory or "")]
        self._watcher = subprocess.Popen(  # noqa: S603 - fixed shell text, arguments passed apart
            ["/bin/sh", "-c", _WATCH, "watchdog", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def release(self) -> None:
        """Ends the watchdog: the server has ended."""
        self._watcher.communicate(b"\n")
