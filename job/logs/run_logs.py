"""Structured logs as JSON lines, and stack traces without confidential text.

Each line has a field ``log``: run, error, cleanup or alert. All logs go to standard output and, with a log volume, to
files as well.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from job.logs.id_hasher import IdHasher
from job.logs.log_files import LogFiles, LogName, retention_days
from job.startup import without
from policy.manifest import SessionPolicy
from stores.model.errors import RunError
from stores.model.sessions import HasLogFields, LogFields, Session
from stores.model.timestamps import format_utc

# It would import rich for stack traces, which these logs do not use.
with without("rich"):
    import structlog

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_CREATED, _ACCESSED, _QUOTE = ', "createdAt": "', ', "lastAccessedAt": "', '"'
_ERRORS = frozenset({"error", "critical", "exception"})


class LogSink:
    """Writes log lines to a stream and to files.

    Args:
        stream: standard output in a cluster; standard error if standard output carries the report.
        level: the lowest level for the stream. Files get everything from INFO on.
        for_people: the stream gets plain text, without lines about single sessions.
    """

    def __init__(self, stream: TextIO, level: int, *, for_people: bool) -> None:
        self._stream = stream
        self._level = level
        self._for_people = for_people
        self.files: LogFiles | None = None
        """Set once the policy is known, if it has a log volume."""
        self.trace_fields: Mapping[str, str] = {}
        """The field ``trace_id``, as OpenTelemetry names it, for every line; empty without a trace."""

    def takes(self, level: int) -> bool:
        """Whether JSON lines of this level are written anywhere."""
        return self._streams(level) or self.files is not None

    def _streams(self, level: int) -> bool:
        return level >= self._level and not self._for_people

    def write(self, log: LogName, level: int, text: str) -> None:
        """Writes JSON lines, each with a newline, in one piece."""
        if self._streams(level):
            self._stream.write(text)
            self._stream.flush()
        if self.files is not None:
            self.files.write(log, text)

    def msg(self, *, log: LogName, level: int, line: str, plain: str | None) -> None:
        """Writes one event; called by structlog."""
        if plain is not None and level >= self._level:
            self._stream.write(plain + "\n")
            self._stream.flush()
        self.write(log, level, line + "\n")

    debug = info = warning = warn = error = critical = exception = fatal = msg


@dataclass(frozen=True, slots=True)
class RunLogs:
    """The logs of a process.

    Attributes:
        log: structured logger; events go to the run log or, from level error on, to the error log.
        sink: writes the lines.
    """

    log: Any
    sink: LogSink

    @property
    def alerts(self) -> Any:
        """Structured logger of the alert log."""
        return self.log.bind(log=LogName.ALERT.value)

    def sessions(self, hasher: IdHasher, *, tells_deleted: bool = True) -> HashedSessionLog:
        """Log of single sessions."""
        return HashedSessionLog(self.sink, hasher, tells_deleted=tells_deleted)

    def write_files(self, policy: SessionPolicy, directory: Path, worker: int = 0) -> LogFiles:
        """Also writes all logs of a policy to files, and deletes files past their retention."""
        name = f"{policy.metadata.namespace}/{policy.metadata.name}"
        files = LogFiles(
            directory, name, lambda why: self.log.warning("log files disabled", because=why), worker=worker
        )
        files.delete_old(retention_days(policy.spec.logs))
        self.sink.files = files
        return files


def open_logs(stream: TextIO, level: int, *, for_people: bool = False) -> RunLogs:
    """Logs with one line per event.

    Args:
        stream: standard output in a cluster; standard error if standard output carries the report.
        level: the lowest level for the stream, e.g. ``logging.INFO``.
        for_people: plain text instead of JSON.
    """
    sink = LogSink(stream, level, for_people=for_people)
    plain = structlog.dev.ConsoleRenderer(colors=stream.isatty()) if for_people else None
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _Render(plain),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min(level, logging.INFO)),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=True,
    )
    return RunLogs(structlog.get_logger(), sink)


class _Render:
    """The last structlog processor: renders an event as JSON and, for people, as text."""

    def __init__(self, plain: Any | None) -> None:
        self._plain = plain
        self._stamp = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")
        self._json = structlog.processors.JSONRenderer(ensure_ascii=False)

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
        level = event["level"]
        log = LogName(event.pop("log", LogName.ERROR if level in _ERRORS else LogName.RUN))
        plain = self._plain(logger, method, dict(event)) if self._plain else None
        document = _in_order(self._stamp(logger, method, {**event, "log": log.value, **logger.trace_fields}))
        line = self._json(logger, method, document)
        return (), {"log": log, "level": _LEVELS.get(level, logging.ERROR), "line": str(line), "plain": plain}


def _in_order(event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The event with time, level, log and event first, for people who read the lines."""
    return {key: event.pop(key) for key in ("time", "level", "log", "event") if key in event} | dict(event)


class HashedSessionLog:
    """Log lines about single sessions, deleted or abnormal, with hashed ids.

    A run may delete millions, so a batch is formatted by hand and written in one piece.

    Args:
        sink: writes the lines.
        hasher: hashes the ids.
        tells_deleted: logs.deletedSessions of the policy.
    """

    def __init__(self, sink: LogSink, hasher: IdHasher, *, tells_deleted: bool = True) -> None:
        self._sink = sink
        self._hasher = hasher
        self._tells_deleted = tells_deleted

    @property
    def tells_deleted(self) -> bool:
        """Whether deleted sessions are logged anywhere."""
        return self._tells_deleted and self._sink.takes(logging.INFO)

    def deleted(self, sessions: Sequence[Session], cause: str) -> None:
        """Logs deleted sessions to the cleanup log.

        Args:
            sessions: a batch, after its commit.
            cause: as in the history.
        """
        if self.tells_deleted:
            self._write(LogName.CLEANUP, logging.INFO, "session deleted", sessions, {"cause": cause})

    def abnormal(self, sessions: Sequence[Session], rule: str, action: str) -> None:
        """Logs sessions that a rule matches to the alert log.

        Args:
            sessions: a batch.
            rule: type of the rule.
            action: what happens to the sessions.
        """
        self._write(LogName.ALERT, logging.WARNING, "abnormal session", sessions, {"rule": rule, "action": action})

    def _write(self, log: LogName, level: int, event: str, sessions: Sequence[Session], why: dict[str, str]) -> None:
        if not sessions:
            return
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        fields = {"time": now, "level": logging.getLevelName(level).lower(), "log": log.value, "event": event, **why}
        fields |= self._sink.trace_fields
        # Hashes and times need no JSON escapes.
        head = json.dumps(fields, ensure_ascii=False)[:-1] + ', "session": "'
        session, users = self._hasher.session, _UserFields(self._hasher)
        lines = [
            f'{head}{session(key)}"{"" if user is None else users[str(user)]}'
            f"{'' if created is None else f'{_CREATED}{created}{_QUOTE}'}"
            f"{'' if accessed is None else f'{_ACCESSED}{accessed}{_QUOTE}'}}}\n"
            for key, user, created, accessed in _fields(sessions)
        ]
        self._sink.write(log, level, "".join(lines))


class _UserFields(dict[str, str]):
    """The JSON field of each user, hashed once per batch."""

    def __init__(self, hasher: IdHasher) -> None:
        self._hasher = hasher

    def __missing__(self, user_id: str) -> str:
        self[user_id] = field = f', "user": "{self._hasher.user(user_id)}"'
        return field


def _fields(sessions: Sequence[Session]) -> Iterable[LogFields]:
    if isinstance(sessions, HasLogFields):
        return sessions.log_fields()
    return ((s.id, s.user_id, _spelt(s.created_at), _spelt(s.last_accessed_at)) for s in sessions)


def _spelt(moment: datetime | None) -> str | None:
    return None if moment is None else format_utc(moment)


def safe_traceback(error: BaseException) -> list[str]:
    """The stack trace without other libraries' messages, which may quote a key, a parameter or a URL.

    Messages of :class:`stores.model.errors.RunError` are our own and are included.
    """
    lines = []
    chain: BaseException | None = error
    while chain is not None:
        message = f": {chain}" if isinstance(chain, RunError) else ""
        lines.append(f"{type(chain).__module__}.{type(chain).__qualname__}{message}")
        lines += [
            f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(chain.__traceback__)
        ]
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return lines
