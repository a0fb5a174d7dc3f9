"""Logs: JSON lines for machines, and stack traces that cannot quote what must not be quoted."""

from __future__ import annotations

import traceback
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from job.errors import RunError


def configure(stream: TextIO, level: int, *, for_people: bool = False) -> Any:
    """A logger that writes one line per event to the stream.

    Args:
        stream: standard output in a cluster; standard error where standard output carries the report.
        level: the lowest level that is written, e.g. ``logging.INFO``.
        for_people: plain text instead of JSON.
    """
    shape: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
        if for_people
        else [
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _in_order,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    )
    structlog.configure(
        processors=[structlog.processors.add_log_level, *shape],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    return structlog.get_logger()


def _in_order(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """When, how grave and what come first, for whoever reads the lines without a tool."""
    return {key: event.pop(key) for key in ("time", "level", "event") if key in event} | dict(event)


def safe_traceback(error: BaseException) -> list[str]:
    """The stack trace without foreign messages: a driver's may quote a row's key, a parameter or a URL.

    Our own messages, in :class:`job.errors.RunError`, are written to be shown.
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
