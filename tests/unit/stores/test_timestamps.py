"""R2: what is logged of very many deleted sessions is, byte for byte, what is logged of each by itself."""

from __future__ import annotations

import io
import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy.engine.default import DefaultDialect

from job.logs.id_hasher import IdHasher
from job.logs.run_logs import HashedSessionLog, LogSink
from policy.mapping import Column, Columns, SessionTable, TimeColumn, TimeEncoding, UserColumn
from stores.model.sessions import Session
from stores.model.timestamps import format_utc, utc_formatter
from stores.sql.dialects.postgresql.dialect import PostgreSQL
from stores.sql.mapping.table import MappedTable
from stores.sql.removal.deleted_rows import CompactColumns, CompactRows

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
FIRST, LAST = (
    (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1) for moment in (datetime.min, datetime.max)
)
microseconds = st.integers(FIRST, LAST) | st.integers(0, 10**15)


@given(microseconds)
@example(FIRST)
@example(LAST)
@example(-1)
def test_a_count_of_microseconds_is_spelt_as_the_moment_it_means(since: int) -> None:
    moment = EPOCH + timedelta(microseconds=since)
    assert (
        utc_formatter(EPOCH)(since)
        == format_utc(moment)
        == moment.replace(microsecond=0, tzinfo=None).isoformat() + "Z"
    )


@given(st.integers(LAST + 1) | st.integers(max_value=FIRST - 1))
@example(LAST + 1)
@example(FIRST - 1)
def test_what_lies_outside_the_calendar_has_no_spelling(since: int) -> None:
    assert utc_formatter(EPOCH)(since) is None


def columns(encoding: TimeEncoding, zone: str) -> CompactColumns:
    """Of a table in PostgreSQL."""
    created, used = (TimeColumn(name=name, encoding=encoding, time_zone=zone) for name in ("created", "used"))
    mapped = Columns(
        id=Column(name="id"),
        user_id=UserColumn(name="user"),
        created_at=created,
        last_accessed_at=used,
    )
    kinds: dict[str, sa.types.TypeEngine[Any]] = {name: sa.Text() for name in ("id", "user")}
    kinds |= {name: sa.DateTime(timezone=encoding is TimeEncoding.TIMESTAMP) for name in ("created", "used")}
    return CompactColumns(MappedTable(SessionTable(None, "s", mapped), PostgreSQL(), kinds), DefaultDialect())


rows = st.tuples(
    st.text(),
    st.none() | st.sampled_from(["", "ann", "None"]) | st.text(),
    st.none() | microseconds,
    st.none() | microseconds,
)


@pytest.mark.parametrize(
    ("encoding", "zone"),
    [
        (TimeEncoding.TIMESTAMP, "UTC"),
        (TimeEncoding.NAIVE_TIMESTAMP, "UTC"),
        (TimeEncoding.NAIVE_TIMESTAMP, "Europe/Berlin"),
    ],
)
@given(fetched=st.lists(rows, max_size=20))
def test_r2_a_line_of_many_is_that_of_one(encoding: TimeEncoding, zone: str, fetched: list[Any]) -> None:
    sessions = CompactRows(len(fetched), lambda: fetched, columns(encoding, zone))
    assert lines(sessions) == lines(list(sessions))


def lines(sessions: CompactRows | list[Session]) -> str:
    """What is logged of them, but for the moment of logging."""
    stream = io.StringIO()
    log = HashedSessionLog(LogSink(stream, logging.INFO, for_people=False), IdHasher(b"0123456789abcdef"))
    log.deleted(sessions, "Expired")
    return re.sub(r'"time": "[^"]*"', "", stream.getvalue())
