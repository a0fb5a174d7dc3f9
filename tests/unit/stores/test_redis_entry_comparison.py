"""R4.4: a log whose entries differ in their times only is judged by one of them, and judged the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.rules import RuleAction, RuleType, SessionRule
from stores.model.sessions import Session
from stores.redis.content.access_log import LogEntries
from stores.redis.content.entry_comparison import differ_in_time_only
from stores.rules.details import SessionDetails
from stores.rules.table import make_detector, matching

BERLIN, LIMA = {"lat": 52.5, "lon": 13.4}, {"lat": -12.0, "lon": -77.0}
KINDS = (RuleType.IMPOSSIBLE_TRAVEL, RuleType.ADDRESS_CHANGE, RuleType.CLIENT_CHANGE)
DETECTORS = [make_detector(SessionRule(type=kind, action=RuleAction.REPORT)) for kind in KINDS]
NOW = datetime(2026, 5, 1, tzinfo=UTC)

# Few values, so that entries are often alike; and names where the one of a time may hide.
TIMES = st.sampled_from([1_700_000_000, 1_700_000_060, 1.5e9, "2026-05-01T12:00:00Z", "2026-05-01 12:00:30", "", None])
ADDRESSES = st.sampled_from(["192.0.2.1", "192.0.2.2", '"time": 1', '\\"at": 5', "", None])
CLIENTS = st.sampled_from(["curl/8.0", "curl/8.1", "Firefox/133", None])
PLACES = st.sampled_from([BERLIN, LIMA, {"at": 5, **BERLIN}, {"at": "6", **LIMA}, "52.5,13.4", "-12,-77", [1, 2], None])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "time": TIMES, "at": TIMES, 'a "time': ADDRESSES, "ip": ADDRESSES, "client": CLIENTS, "location": PLACES,
}  # fmt: skip


@st.composite
def logs(draw: st.DrawFn) -> list[bytes]:
    """Entries of one application: its names in one order, some of them always with the same value."""
    names = draw(st.permutations(list(FIELDS)))
    fixed = {name: draw(FIELDS[name]) for name in draw(st.sets(st.sampled_from(names)))}
    entries = []
    for _ in range(draw(st.integers(1, 5))):
        fields = {name: fixed[name] if name in fixed else draw(FIELDS[name]) for name in names}
        entry = json.dumps(fields, separators=draw(st.sampled_from([(", ", ": "), (",", ":")]))).encode()
        if draw(st.integers(0, 9)) == 0:  # something is wrong with it
            at = draw(st.integers(0, len(entry)))
            entry = entry[:at] + draw(st.sampled_from([b"", b"9", b" ", b"-", b'"', b","])) + entry[at + 1 :]
        entries.append(entry)
    return entries


@given(logs(), ADDRESSES, CLIENTS)
def test_r4_4_one_entry_stands_for_all_only_where_the_verdict_is_the_same(
    entries: list[bytes], address: str | None, client: str | None
) -> None:
    log = LogEntries(entries)
    if log.common_access is None:
        return
    one, all_of_them = (
        matching(DETECTORS, SessionDetails(Session("s"), address, client, accesses=accesses), NOW)
        for accesses in ([log.common_access], log.accesses)
    )
    assert one == all_of_them


@pytest.mark.parametrize("name", ["time", "timestamp", "at", "ts"])
@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":")])
@pytest.mark.parametrize(
    "times",
    [(1_700_000_000, 1_700_000_301), (1_700_000_000.25, 1_700_000_001), (1_700_000_000_123, 1_700_000_000_456),
     ("2026-05-01T12:00:00Z", "2026-05-01T09:59:31Z"), ("2026-05-01 12:00:00.5+02:00", "2026-04-01 12:00:00+01:00")],
)  # fmt: skip
def test_r6_logs_as_applications_write_them_are_not_decoded_entry_by_entry(
    name: str, separators: tuple[str, str], times: tuple[Any, Any]
) -> None:
    entries = [
        json.dumps({"ip": "192.0.2.1", name: time, "location": BERLIN}, separators=separators).encode()
        for time in times
    ]
    assert differ_in_time_only(entries)
    assert differ_in_time_only(entries[::-1])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"time": 1, "ip": "192.0.2.1"}, {"time": 1, "ip": "192.0.2.2"}),
        ({"time": 1, "ip": "192.0.2.1"}, {"time": 2, "ip": "192.0.2.2"}),
        ({"ip": "192.0.2.1", "time": 1}, {"ip": "192.0.2.2", "time": 2}),
        ({"location": BERLIN, "time": 1}, {"location": LIMA, "time": 1}),
        ({"client": "a"}, {"client": "b"}),
        ({"time": 1}, {"time": 1, "ip": "192.0.2.1"}),
        ({"time": "1"}, {"time": 1}),
    ],
)
def test_r4_4_entries_that_differ_in_anything_else_are_not_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    entries = [json.dumps(fields).encode() for fields in (one, other)]
    assert not differ_in_time_only(entries)
    assert not differ_in_time_only(entries[::-1])


@pytest.mark.parametrize("entries", [[], [b"{"], [b"[]", b"[]"], [b'{"time": 1..2}', b'{"time": 12}']])
def test_what_says_nothing_stands_for_nothing(entries: list[bytes]) -> None:
    assert LogEntries(entries).common_access is None
