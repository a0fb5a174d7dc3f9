"""R3.3: entries of access logs as applications write them; nothing in one can break a run."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.redis.content.access_log import read_entry
from stores.rules.details import Access, GeoPoint

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=5,
)
KEYS = st.sampled_from(["time", "ip", "client", "location", "lat", "lon", "timestamp", "userAgent"])


@pytest.mark.parametrize(
    "time", [NOON.timestamp(), int(NOON.timestamp() * 1000), str(int(NOON.timestamp())), "2026-05-01T14:00:00+02:00",
             "2026-05-01T12:00:00Z", "2026-05-01T12:00:00"]
)  # fmt: skip
def test_r3_3_times(time: object) -> None:
    assert read_entry(json.dumps({"time": time})).at == NOON


@pytest.mark.parametrize(
    "fields",
    [
        {"location": {"lat": 52.5, "lon": 13.4}},
        {"location": {"latitude": "52.5", "longitude": "13.4"}},
        {"location": [52.5, 13.4]},
        {"location": "52.5,13.4"},
        {"lat": 52.5, "lng": 13.4},
        {"geo": {"lat": 52.5, "lng": 13.4}},
    ],
)
def test_r3_3_places(fields: dict[str, object]) -> None:
    assert read_entry(json.dumps(fields)).place == GeoPoint(52.5, 13.4)


@pytest.mark.parametrize("location", ["Berlin", "91,0", [1], [True, 2], {"lat": 1}, {"lat": "x", "lon": 1}, None, 7])
def test_what_is_no_place_is_not_known(location: object) -> None:
    assert read_entry(json.dumps({"location": location})).place is None


def test_r3_3_address_and_client() -> None:
    entry = read_entry(b'{"ip": "192.0.2.1", "client": "curl/8", "time": 0}')
    assert entry == Access(datetime(1970, 1, 1, tzinfo=UTC), "192.0.2.1", "curl/8")
    assert read_entry('{"remoteAddress": "192.0.2.1", "userAgent": "x"}') == Access(None, "192.0.2.1", "x")


@given(st.binary() | JSON.map(json.dumps) | st.dictionaries(KEYS, JSON).map(json.dumps))
def test_anything_may_be_in_a_log(entry: bytes | str) -> None:
    assert isinstance(read_entry(entry), Access)
