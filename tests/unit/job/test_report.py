"""The report fits where it goes, and is read strictly."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from job.cli.termination_message import to_text, write_termination_message
from policy.reasons import ALERTS
from policy.report import (
    MAX_ALERTS,
    MAX_MESSAGE_LENGTH,
    Alert,
    Outcome,
    RedisCounts,
    RunReport,
    SessionCounts,
    Vitals,
    printable,
)

MOST = 2**53
KUBELET_KEEPS = 4096

counts = st.one_of(st.integers(0, MOST), st.just(MOST))
times = st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1)).map(lambda t: t.replace(tzinfo=UTC))
texts = st.one_of(
    st.text(max_size=600),
    st.sampled_from(['"', "\\", "\U0001f600", "\x00", "\u2028", "é", "\n", "\ud800"]).map(lambda c: c * 600),
)
sessions = st.fixed_dictionaries(dict.fromkeys(SessionCounts.model_fields, counts)).map(lambda c: SessionCounts(**c))
redis = st.fixed_dictionaries(dict.fromkeys(RedisCounts.model_fields, counts)).map(lambda c: RedisCounts(**c))
vitals = st.builds(
    Vitals,
    redis_memory_bytes=st.one_of(st.none(), counts),
    redis_hit_ratio=st.one_of(st.none(), st.floats(0, 1)),
    created_per_hour=st.one_of(st.none(), st.floats(0, 10**9)),
    average_session_seconds=st.one_of(st.none(), counts),
)
reports = st.fixed_dictionaries(
    {
        "outcome": st.sampled_from(Outcome),
        "reason": st.just("R" * 64),
        "message": texts.map(printable),
        "start_time": times,
        "completion_time": times,
        "duration_seconds": st.floats(0, 10**7),
        "dry_run": st.booleans(),
        "policy_generation": st.one_of(st.none(), counts),
        "sessions": sessions,
        "redis": st.one_of(st.none(), redis),
        "vitals": st.one_of(st.none(), vitals),
        "alerts": st.just([Alert(reason="R" * 64, count=MOST)] * MAX_ALERTS),
        "trace_id": st.one_of(st.none(), st.just("f" * 32)),
    }
).map(lambda fields: RunReport(**fields))


@given(report=reports)
def test_r2_10_any_report_fits_the_termination_message_and_comes_back(report: RunReport) -> None:
    text = to_text(report)
    assert len(text.encode()) <= KUBELET_KEEPS
    assert "\n" not in text
    assert RunReport.model_validate_json(text, strict=True, by_alias=True, by_name=False) == report


def test_r2_10_a_report_with_all_there_is_to_say_stays_below_2_kib() -> None:
    """Of runs as they are: all counts in the hundreds of millions, the longest words, a message of 512 letters."""
    full = RunReport(
        outcome=Outcome.SUCCEEDED,
        reason="DeletionLimitReached",
        message="x" * MAX_MESSAGE_LENGTH,
        start_time=datetime(2026, 1, 1, tzinfo=UTC),
        completion_time=datetime(2026, 1, 1, tzinfo=UTC),
        duration_seconds=86399.999,
        dry_run=True,
        policy_generation=1_000_000,
        sessions=SessionCounts(**dict.fromkeys(SessionCounts.model_fields, 999_999_999)),
        redis=RedisCounts(**dict.fromkeys(RedisCounts.model_fields, 999_999_999)),
        vitals=Vitals(
            redis_memory_bytes=2**48,
            redis_hit_ratio=0.9999,
            created_per_hour=999_999_999.99,
            average_session_seconds=999_999_999,
        ),
        alerts=[Alert(reason=reason, count=999_999_999) for reason in sorted(ALERTS, key=len)[-MAX_ALERTS:]],
        trace_id="f" * 32,
    )
    assert len(to_text(full).encode()) < 2048


@given(text=texts)
def test_a_printable_text_is_one_line_and_not_too_long(text: str) -> None:
    line = printable(text)
    assert len(line) <= MAX_MESSAGE_LENGTH
    assert all(c.isprintable() for c in line)
    assert line.strip() == line
    assert printable(line) == line


def good() -> dict[str, Any]:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return RunReport(
        outcome=Outcome.SUCCEEDED,
        reason="Completed",
        message="m",
        start_time=now,
        completion_time=now,
        duration_seconds=1,
    ).to_json_object()


@pytest.mark.parametrize(
    "change",
    [
        {"outcome": "Splendid"},
        {"reason": "two words"},
        {"reason": "x" * 65},
        {"message": "x" * (MAX_MESSAGE_LENGTH + 1)},
        {"message": 1},
        {"startTime": "2026-01-01T00:00:00"},
        {"startTime": "yesterday"},
        {"durationSeconds": -1},
        {"durationSeconds": "1"},
        {"dryRun": "true"},
        {"traceID": "F" * 32},
        {"traceID": "f" * 31},
        {"sessions": {"deleted": -1}},
        {"sessions": {"deleted": MOST + 1}},
        {"sessions": {"deleted": 1.5}},
        {"sessions": {"stolen": 1}},
        {"vitals": {"redisHitRatio": 1.1}},
        {"vitals": {"redisMemoryBytes": -1}},
        {"vitals": {"createdPerHour": 10**10}},
        {"vitals": {"sessionId": "s"}},
        {"unknown": 1},
        {"start_time": "2026-01-01T00:00:00Z"},
    ],
    ids=str,
)
def test_a_report_is_parsed_strictly(change: dict[str, Any]) -> None:
    RunReport.model_validate_json(json.dumps(good()), strict=True, by_alias=True, by_name=False)
    with pytest.raises(ValidationError):
        RunReport.model_validate_json(json.dumps(good() | change), strict=True, by_alias=True, by_name=False)


@pytest.mark.parametrize("field", ["outcome", "reason", "message", "startTime", "completionTime", "durationSeconds"])
def test_a_report_without_what_it_needs_is_none(field: str) -> None:
    short = {k: v for k, v in good().items() if k != field}
    with pytest.raises(ValidationError):
        RunReport.model_validate_json(json.dumps(short), strict=True)


def test_r2_10_the_termination_message_is_written_only_where_a_pod_has_one(tmp_path: Path) -> None:
    report = RunReport.model_validate(good())
    missing, there = tmp_path / "missing", tmp_path / "there"
    there.write_text("x" * 5000)
    for path in (missing, there):
        write_termination_message(report, path)
    assert not missing.exists()
    assert json.loads(there.read_text()) == good()


@pytest.mark.parametrize("ids", [(None, "a" * 32), ("a" * 32, None)])
def test_r2_10_a_report_may_be_written_again_with_more_or_less_in_it(
    tmp_path: Path, ids: tuple[str | None, str | None]
) -> None:
    path = tmp_path / "termination-log"
    path.touch()
    for trace_id in ids:
        report = RunReport.model_validate(good()).model_copy(update={"trace_id": trace_id})
        write_termination_message(report, path)
        assert json.loads(path.read_text()) == report.to_json_object()
