"""Logs: JSON lines for machines, and stack traces that cannot quote what must not be quoted.

Each line has a field ``log``: run, error, cleanup or alert. All go to standard output, and to files where there is a
volume for them.
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

from job.logs.identity import Identities
from job.logs.logfiles import LogFiles, LogName, retention_days
from job.startup import without
from policy.manifest import SessionPolicy
from stores.model.errors import RunError
from stores.model.sessions import Session, Spelling, Told
from stores.model.timestamps import spelt

# It would import rich to draw stack traces, which these logs never leave to it.
with without("rich"):
    import structlog

_NUMBERS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_CREATED, _ACCESSED, _QUOTE = ', "createdAt": "', ', "lastAccessedAt": "', '"'
_ERRORS = frozenset({"error", "critical", "exception"})


class LogSink:
    """Where finished lines go.

    Args:
        stream: standard output in a cluster; standard error where standard output carries the report.
        level: the lowest level that the stream gets. Files get everything from INFO on.
        for_people: the stream gets plain text, and no single sessions.
    """

    def __init__(self, stream: TextIO, level: int, *, for_people: bool) -> None:
        self._stream = stream
        self._level = level
        self._for_people = for_people
        self.files: LogFiles | None = None
        """The volume, once the policy is known."""
        self.trace_fields: Mapping[str, str] = {}
        """What every line says of the run's trace, in the field OpenTelemetry names for it; nothing without one."""

    def takes(self, level: int) -> bool:
        """Whether lines of JSON of this level are written anywhere."""
        return self._streams(level) or self.files is not None

    def _streams(self, level: int) -> bool:
        return level >= self._level and not self._for_people

    def write(self, log: LogName, level: int, text: str) -> None:
        """Writes lines of JSON, each with its line end, as one piece."""
        if self._streams(level):
            self._stream.write(text)
            self._stream.flush()
        if self.files is not None:
            self.files.write(log, text)

    def msg(self, *, log: LogName, level: int, line: str, plain: str | None) -> None:
        """Writes one event; structlog calls it."""
        if plain is not None and level >= self._level:
            self._stream.write(plain + "\n")
            self._stream.flush()
        self.write(log, level, line + "\n")

    debug = info = warning = warn = error = critical = exception = fatal = msg


@dataclass(frozen=True, slots=True)
class RunLogs:
    """The logs of a process.

    Attributes:
        log: the structured log; its events are of the run log or, from level error on, of the error log.
        sink: where lines go.
    """

    log: Any
    sink: LogSink

    @property
    def alerts(self) -> Any:
        """The alert log, for what is not about a single session."""
        return self.log.bind(log=LogName.ALERT.value)

    def sessions(self, identities: Identities, *, tells_deleted: bool = True) -> SessionLog:
        """The logs of single sessions; see :class:`SessionLog`."""
        return SessionLog(self.sink, identities, tells_deleted=tells_deleted)

    def keep_files(self, policy: SessionPolicy, directory: Path, worker: int = 0) -> LogFiles:
        """Has all logs of a policy written to files as well, and forgets those that are old enough."""
        name = f"{policy.metadata.namespace}/{policy.metadata.name}"
        files = LogFiles(directory, name, lambda why: self.log.warning("log files off", because=why), worker=worker)
        files.forget(retention_days(policy.spec.logs))
        self.sink.files = files
        return files


def configure(stream: TextIO, level: int, *, for_people: bool = False) -> Any:
    """A logger that writes one line per event to the stream; see :func:`open_logs`."""
    return open_logs(stream, level, for_people=for_people).log


def open_logs(stream: TextIO, level: int, *, for_people: bool = False) -> RunLogs:
    """Logs that write one line per event.

    Args:
        stream: standard output in a cluster; standard error where standard output carries the report.
        level: the lowest level that is written to the stream, e.g. ``logging.INFO``.
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
    """The last processor: an event as a line of JSON and, for people, as text."""

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
        return (), {"log": log, "level": _NUMBERS.get(level, logging.ERROR), "line": str(line), "plain": plain}


def _in_order(event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """When, how grave, which log and what come first, for whoever reads the lines without a tool."""
    return {key: event.pop(key) for key in ("time", "level", "log", "event") if key in event} | dict(event)


class SessionLog:
    """Single sessions, by the hashes of their ids: what was deleted, and what was abnormal.

    A run may delete millions, so a batch is formatted by hand and written as one piece.

    Args:
        sink: where lines go.
        identities: hash the ids.
        tells_deleted: whether anybody wants to read of deleted sessions.
    """

    def __init__(self, sink: LogSink, identities: Identities, *, tells_deleted: bool = True) -> None:
        self._sink = sink
        self._identities = identities
        self._tells_deleted = tells_deleted

    @property
    def tells_deleted(self) -> bool:
        """Whether a deleted session is written anywhere."""
        return self._tells_deleted and self._sink.takes(logging.INFO)

    def deleted(self, sessions: Sequence[Session], cause: str) -> None:
        """The cleanup log: these sessions are gone from the database, or from Redis.

        Args:
            sessions: a batch, after its transaction was committed.
            cause: why, as in the history.
        """
        if self.tells_deleted:
            self._write(LogName.CLEANUP, logging.INFO, "session deleted", sessions, {"cause": cause})

    def abnormal(self, sessions: Sequence[Session], rule: str, action: str) -> None:
        """The alert log: a rule applies to these sessions.

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
        # Hashes and times need no escapes.
        head = json.dumps(fields, ensure_ascii=False)[:-1] + ', "session": "'
        session, owned = self._identities.session, _Owned(self._identities)
        lines = [
            f'{head}{session(key)}"{"" if owner is None else owned[str(owner)]}'
            f"{'' if created is None else f'{_CREATED}{created}{_QUOTE}'}"
            f"{'' if accessed is None else f'{_ACCESSED}{accessed}{_QUOTE}'}}}\n"
            for key, owner, created, accessed in _told(sessions)
        ]
        self._sink.write(log, level, "".join(lines))


class _Owned(dict[str, str]):
    """What a line says of an owner: several sessions of a batch may have the same."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    def __missing__(self, user_id: str) -> str:
        self[user_id] = told = f', "user": "{self._identities.user(user_id)}"'
        return told


def _told(sessions: Sequence[Session]) -> Iterable[Told]:
    if isinstance(sessions, Spelling):
        return sessions.spelt()
    return ((s.id, s.user_id, _spelt(s.created_at), _spelt(s.last_accessed_at)) for s in sessions)


def _spelt(moment: datetime | None) -> str | None:
    return None if moment is None else spelt(moment)


def safe_traceback(error: BaseException) -> list[str]:
    """The stack trace without foreign messages: a driver's may quote a row's key, a parameter or a URL.

    Our own messages, in :class:`stores.model.errors.RunError`, are written to be shown.
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
