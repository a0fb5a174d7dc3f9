"""A bound errs towards keeping a session: whatever a store did to a time, none at or after the bound is below it."""

from __future__ import annotations

import math
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policy.mapping import TimeEncoding
from stores.model.time_encoding import decode_time, encode_bound

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Asia/Kolkata",
    "Australia/Lord_Howe",  # its clocks change by half an hour
    "Pacific/Apia",  # once left out a whole day
    "Africa/Casablanca",  # goes back an hour for Ramadan
    "Antarctica/Troll",  # its clocks change by two hours
]
moments = st.datetimes(datetime(1980, 1, 1), datetime(2060, 1, 1)).map(lambda t: t.replace(tzinfo=UTC))
# Where clocks are set back: Berlin, October 2026 and others.
changes = st.builds(
    lambda base, offset: base + offset,
    st.sampled_from(
        [
            datetime(2026, 10, 25, 1, tzinfo=UTC),
            datetime(2026, 11, 1, 6, tzinfo=UTC),
            datetime(2026, 4, 4, 15, tzinfo=UTC),
        ]
    ),
    st.timedeltas(timedelta(hours=-4), timedelta(hours=4)),
)
later = st.one_of(
    st.timedeltas(timedelta(0), timedelta(hours=4)),
    st.timedeltas(timedelta(0), timedelta(days=400)),
    st.timedeltas(timedelta(0), timedelta(milliseconds=2)),
)


def cut(moment: datetime, unit: timedelta) -> datetime:
    return moment - (moment - datetime(1970, 1, 1, tzinfo=UTC)) % unit


def rounded(moment: datetime, unit: timedelta) -> datetime:
    return cut(moment + unit / 2, unit)


def stored_forms(moment: datetime, encoding: TimeEncoding, zone: ZoneInfo) -> list[Any]:
    """What columns of this kind may hold for a moment: whole, cut, or rounded to a column's precision."""
    units = [timedelta(seconds=1), timedelta(milliseconds=1), timedelta(microseconds=1)]
    kept = [f(moment, unit) for unit in units for f in (cut, rounded)]
    if encoding is TimeEncoding.EPOCH_SECONDS:
        return [*(math.floor(t.timestamp()) for t in kept), moment.timestamp()]
    if encoding is TimeEncoding.EPOCH_MILLISECONDS:
        exact = (moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1)
        return [*(math.floor(t.timestamp()) * 1000 for t in kept), math.floor(exact), round(exact), exact]
    if encoding is TimeEncoding.JULIAN_DAY:
        milliseconds = (cut(moment, units[1]) - datetime(1970, 1, 1, tzinfo=UTC)) // units[1]
        return [
            *(t.timestamp() / 86400 + 2440587.5 for t in kept),
            (milliseconds + 210866760000000) / 86400000,  # as SQLite computes it
            (moment.timestamp() + 210866760000) / 86400,
        ]
    if encoding is TimeEncoding.NAIVE_TIMESTAMP:
        return [t.astimezone(zone).replace(tzinfo=None) for t in kept]
    return kept


@pytest.mark.parametrize("encoding", list(TimeEncoding), ids=lambda e: e.value)
@given(cutoff=st.one_of(moments, changes), after=later, zone=st.sampled_from(ZONES))
@example(datetime(2026, 10, 25, 0, 30, tzinfo=UTC), timedelta(minutes=40), "Europe/Berlin")
@example(datetime(2026, 10, 25, 0, 59, 59, 999999, tzinfo=UTC), timedelta(seconds=1), "Europe/Berlin")
@example(datetime(2026, 3, 29, 0, 59, tzinfo=UTC), timedelta(minutes=2), "Europe/Berlin")
def test_r6_no_time_at_or_after_the_cutoff_is_below_its_bound(
    encoding: TimeEncoding, cutoff: datetime, after: timedelta, zone: str
) -> None:
    bound = encode_bound(cutoff, encoding, ZoneInfo(zone))
    for stored in stored_forms(cutoff + after, encoding, ZoneInfo(zone)):
        assert not stored < bound


@pytest.mark.parametrize("encoding", list(TimeEncoding), ids=lambda e: e.value)
@given(
    cutoff=moments,
    before=st.timedeltas(timedelta(hours=3, seconds=3), timedelta(days=3000)),
    zone=st.sampled_from(ZONES),
)
def test_what_is_clearly_older_is_below_the_bound(
    encoding: TimeEncoding, cutoff: datetime, before: timedelta, zone: str
) -> None:
    if zone == "Pacific/Apia":  # in its year of the lost day, a bound may be a day early
        before += timedelta(days=1)
    bound = encode_bound(cutoff, encoding, ZoneInfo(zone))
    for stored in stored_forms(cutoff - before, encoding, ZoneInfo(zone)):
        assert stored < bound


@pytest.mark.parametrize(
    "encoding", [e for e in TimeEncoding if e is not TimeEncoding.NAIVE_TIMESTAMP], ids=lambda e: e.value
)
@given(cutoff=moments)
def test_without_zones_the_bound_is_less_than_three_seconds_early(encoding: TimeEncoding, cutoff: datetime) -> None:
    for stored in stored_forms(cutoff - timedelta(seconds=3), encoding, ZoneInfo("UTC")):
        assert stored < encode_bound(cutoff, encoding)


@given(cutoff=moments, after=later)
def test_sqlites_own_julianday_agrees(cutoff: datetime, after: timedelta) -> None:
    bound = encode_bound(cutoff, TimeEncoding.JULIAN_DAY)
    moment = (cutoff + after).replace(tzinfo=None).isoformat(sep=" ")
    with sqlite3.connect(":memory:") as connection:
        (stored,) = connection.execute("SELECT julianday(?)", (moment,)).fetchone()
    connection.close()
    assert not stored < bound


@pytest.mark.parametrize("encoding", list(TimeEncoding), ids=lambda e: e.value)
@given(moment=moments)
def test_what_was_written_is_read_again(encoding: TimeEncoding, moment: datetime) -> None:
    for stored in stored_forms(moment, encoding, ZoneInfo("UTC")):
        read = decode_time(stored, encoding)
        assert read is not None
        # Whole seconds may be all that is stored; and a day number tells a second to some 40 microseconds.
        assert abs(read - moment) <= timedelta(seconds=1, milliseconds=1)


@pytest.mark.parametrize("encoding", list(TimeEncoding), ids=lambda e: e.value)
@given(
    value=st.one_of(
        st.none(), st.booleans(), st.text(), st.binary(), st.floats(), st.integers(), st.lists(st.integers())
    )
)
def test_nothing_that_a_store_may_hold_is_an_error(encoding: TimeEncoding, value: Any) -> None:
    assert isinstance(decode_time(value, encoding), datetime | None)
