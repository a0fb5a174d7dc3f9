"""Log files on a volume: one per log, policy and day, and their retention.

Each worker has files of its own: some volumes lose data if two machines append to one file at the same time.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from policy.spec import Logs


class LogName(StrEnum):
    """The logs of a run."""

    RUN = "run"
    """Start, end, counts and warnings."""
    ERROR = "error"
    """What went wrong, with stack traces."""
    CLEANUP = "cleanup"
    """Each deleted session."""
    ALERT = "alert"
    """Abnormal sessions, problems found, and alerts sent."""


FOLDERS: Mapping[LogName, str] = {
    LogName.RUN: "batch",
    LogName.ERROR: "batch",
    LogName.CLEANUP: "session",
    LogName.ALERT: "alerts",
}
"""The folder of each log on the volume."""


def retention_days(logs: Logs) -> dict[LogName, int]:
    """Retention of each log, in days."""
    return {
        LogName.RUN: logs.run_retention_days,
        LogName.ERROR: logs.error_retention_days,
        LogName.CLEANUP: logs.cleanup_retention_days,
        LogName.ALERT: logs.alert_retention_days,
    }


@contextmanager
def open_folder(directory: Path, name: str) -> Iterator[int]:
    """The descriptor of a folder on the volume, created if missing, for use as ``dir_fd``.

    Others can write to the volume, so a folder that is a symlink is refused.

    Raises:
        OSError: the folder is a symlink or a file, or the volume cannot be used.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    with suppress(FileExistsError):
        path.mkdir()
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _today() -> date:
    return datetime.now(UTC).date()


class LogFiles:
    """Appends lines to the log files of one policy.

    A volume that is full, read-only or missing never fails a run: ``failed`` is called once, and writing stops.

    Args:
        directory: the volume.
        policy: namespace and name; several policies may share a volume.
        failed: called once with the error, when the volume cannot be used.
        today: the current date in UTC.
        worker: index of the worker in its run.
    """

    def __init__(
        self,
        directory: Path,
        policy: str,
        failed: Callable[[str], None],
        today: Callable[[], date] = _today,
        worker: int = 0,
    ) -> None:
        self._directory = directory
        self._policy = policy.replace("/", ".")
        self._suffix = f"_{worker}" if worker else ""  # policy names have no underscore
        self._failed = failed
        self._today = today
        self._open: dict[LogName, tuple[date, int]] = {}
        self._usable = True

    def path(self, log: LogName, day: date) -> Path:
        """The file of a day."""
        return self._directory / FOLDERS[log] / f"{log}-{day.isoformat()}.{self._policy}{self._suffix}.jsonl"

    def write(self, log: LogName, text: str) -> None:
        """Appends whole lines; never raises."""
        if not self._usable or not text:
            return
        try:
            _append(self._descriptor(log), text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            self._give_up(error)

    def delete_old(self, days: Mapping[LogName, int]) -> None:
        """Deletes this policy's files that are older than their retention in days, and no other file; never raises."""
        if not self._usable:
            return
        try:
            for log, kept in days.items():
                self._delete_old(log, self._today() - timedelta(days=kept))
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Closes the files; never raises."""
        for _, descriptor in self._open.values():
            try:
                os.close(descriptor)
            except OSError as error:  # some volumes report only now that they are full
                self._give_up(error)
        self._open.clear()

    def _delete_old(self, log: LogName, oldest: date) -> None:
        if not (self._directory / FOLDERS[log]).is_dir():
            return
        ours = re.compile(rf"{log}-(\d{{4}}-\d\d-\d\d)\.{re.escape(self._policy)}(?:_\d+)?\.jsonl")
        with open_folder(self._directory, FOLDERS[log]) as folder, os.scandir(folder) as entries:
            for entry in entries:
                match = ours.fullmatch(entry.name)
                if match and _day(match[1]) < oldest and entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        os.unlink(entry.name, dir_fd=folder)

    def _descriptor(self, log: LogName) -> int:
        today = self._today()
        day, descriptor = self._open.get(log, (None, -1))
        if day == today:
            return descriptor
        if day is not None:
            del self._open[log]
            os.close(descriptor)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with open_folder(self._directory, FOLDERS[log]) as folder:
            descriptor = os.open(self.path(log, today).name, flags, 0o640, dir_fd=folder)
        self._open[log] = today, descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")  # writing to a FIFO could block forever
        _end_line(descriptor)
        return descriptor

    def _give_up(self, error: OSError) -> None:
        if self._usable:
            self._usable = False
            self._failed(f"the log volume cannot be used ({error.strerror or type(error).__name__})")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return date.max  # not a date, so not our file


def _append(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _end_line(descriptor: int) -> None:
    """Ends a line that a killed run or a full volume left incomplete."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        os.write(descriptor, b"\n")
