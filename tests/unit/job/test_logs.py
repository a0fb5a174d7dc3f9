"""R2: run, error, cleanup and alert log on the stream."""

from __future__ import annotations

import io
import json
import logging
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from job.logs.id_hasher import IdHasher
from job.logs.log_files import LogFiles
from job.logs.run_logs import RunLogs, open_logs, safe_traceback
from stores.model.errors import RunError
from stores.model.sessions import Session

IDENTITIES = IdHasher(b"0123456789abcdef")
SESSION = Session("secret-id", "ann@example.org", datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 1, 1, tzinfo=UTC))


def written(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def opened(level: int = logging.INFO, **options: Any) -> tuple[io.StringIO, RunLogs]:
    stream = io.StringIO()
    return stream, open_logs(stream, level, **options)


def test_r2_every_line_says_which_log_it_belongs_to() -> None:
    stream, logs = opened()
    logs.log.info("run started", policy="shop")
    logs.log.warning("retry")
    logs.log.error("run failed", trace=["a", "b"])
    logs.alerts.warning("problem found", reason="RunTooLong")
    logs.sessions(IDENTITIES).deleted([SESSION], "Expired")
    logs.sessions(IDENTITIES).abnormal([SESSION], "LongRunning", "Report")
    lines = written(stream)
    assert [line["log"] for line in lines] == ["run", "run", "error", "alert", "cleanup", "alert"]
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in lines)
    assert [line["level"] for line in lines] == ["info", "warning", "error", "warning", "info", "warning"]


def test_deleted_sessions_are_left_out_where_nobody_wants_them_and_abnormal_ones_are_not() -> None:
    stream, logs = opened()
    sessions = logs.sessions(IDENTITIES, tells_deleted=False)
    sessions.deleted([SESSION], "Expired")
    sessions.abnormal([SESSION], "LongRunning", "Report")
    assert [line["log"] for line in written(stream)] == ["alert"]


@pytest.mark.parametrize(("level", "options"), [(logging.WARNING, {}), (logging.INFO, {"for_people": True})])
def test_what_no_stream_takes_is_told_only_where_there_is_a_file_for_it(
    tmp_path: Path, level: int, options: dict[str, bool]
) -> None:
    stream, logs = opened(level, **options)
    sessions = logs.sessions(IDENTITIES)
    before = sessions.tells_deleted
    logs.sink.files = LogFiles(tmp_path, "web/shop", lambda _: None)
    assert (before, sessions.tells_deleted) == (False, True)
    sessions.deleted([SESSION], "Expired")
    assert stream.getvalue() == ""
    (file,) = (tmp_path / "session").glob("cleanup-*.jsonl")
    assert json.loads(file.read_text())["event"] == "session deleted"


def test_r2_a_deleted_session_is_logged_by_hash_with_cause_and_times() -> None:
    stream, logs = opened()
    logs.sessions(IDENTITIES).deleted([SESSION, Session("other")], "Evicted")
    first, second = written(stream)
    assert first.pop("time")
    assert first == {
        "level": "info",
        "log": "cleanup",
        "event": "session deleted",
        "cause": "Evicted",
        "session": IDENTITIES.session("secret-id"),
        "user": IDENTITIES.user("ann@example.org"),
        "createdAt": "2026-03-01T00:00:00Z",
        "lastAccessedAt": "2026-03-01T01:00:00Z",
    }
    assert "user" not in second
    assert "secret-id" not in stream.getvalue()
    assert "ann" not in stream.getvalue()


def test_r1_3_every_line_of_a_traced_run_names_its_trace() -> None:
    stream, logs = opened()
    logs.log.info("before")
    logs.sink.trace_fields = {"trace_id": "a" * 32}
    logs.log.info("run started")
    logs.log.error("run failed", trace=["a"])
    logs.alerts.warning("problem found")
    logs.sessions(IDENTITIES).deleted([SESSION], "Expired")
    logs.sessions(IDENTITIES).abnormal([SESSION], "LongRunning", "Report")
    first, *lines = written(stream)
    assert "trace_id" not in first
    assert [line["trace_id"] for line in lines] == ["a" * 32] * 5


def test_people_at_a_terminal_get_text_and_no_single_sessions() -> None:
    stream, logs = opened(logging.WARNING, for_people=True)
    logs.log.info("expired", found=3)
    logs.log.warning("retry", what="database")
    logs.sessions(IDENTITIES).deleted([SESSION], "Expired")
    (line,) = stream.getvalue().splitlines()
    assert "retry" in line
    assert "database" in line


def test_the_volume_gets_everything_whatever_the_terminal_shows(tmp_path: Path) -> None:
    stream, logs = opened(logging.WARNING, for_people=True)
    logs.sink.files = LogFiles(tmp_path, "web/shop", lambda _: pytest.fail("volume"))
    logs.log.info("run started")
    logs.sessions(IDENTITIES).deleted([SESSION], "Expired")
    logs.sink.files.close()
    assert stream.getvalue() == ""
    assert {path.parent.name for path in tmp_path.rglob("*.jsonl")} == {"batch", "session"}


def test_a_batch_is_one_write_and_leaves_no_memory_behind() -> None:
    class Counting(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            return len(text)

    stream = Counting()
    sessions = open_logs(stream, logging.INFO).sessions(IDENTITIES)
    batch = [Session(f"id-{n}", "u") for n in range(1000)]
    sessions.deleted(batch, "Expired")
    assert stream.writes == 1
    tracemalloc.start()
    for _ in range(30):
        sessions.deleted(batch, "Expired")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 200_000  # thirty batches of about 200 kB each


def test_no_sessions_are_no_line() -> None:
    stream, logs = opened()
    logs.sessions(IDENTITIES).deleted([], "Expired")
    assert stream.getvalue() == ""


def test_a_stack_trace_quotes_no_foreign_message() -> None:
    try:
        try:
            raise ValueError("Key (session_id)=(abc) is referenced")
        except ValueError as error:
            raise RunError("told on purpose") from error
    except RunError as failure:
        text = "\n".join(safe_traceback(failure))
    assert "told on purpose" in text
    assert "abc" not in text
