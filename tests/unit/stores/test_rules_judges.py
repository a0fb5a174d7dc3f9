"""R4.4, R4.5: each rule on the details of one session."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import pi

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.rules import DEFAULT_RULES, RuleAction, RuleType, SessionRule
from stores.model.sessions import Session
from stores.rules.details import Access, GeoPoint, SessionDetails
from stores.rules.detector import MAX_LOG_ENTRIES, RequiredField
from stores.rules.impossible_travel import distance_kilometers
from stores.rules.login_burst import LoginBurst, Span, burst_spans
from stores.rules.request_burst import has_burst
from stores.rules.table import log_entries_to_read, make_detector, matching, missing_fields, most_severe

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SKEW = timedelta(seconds=5)
BERLIN, PARIS, NEW_YORK = GeoPoint(52.52, 13.40), GeoPoint(48.86, 2.35), GeoPoint(40.71, -74.01)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def applies(kind: str, details: SessionDetails, **fields: int) -> bool:
    return make_detector(SessionRule.model_validate({"type": kind, **fields}), SKEW).matches(details, NOW)


def session(**fields: object) -> SessionDetails:
    return SessionDetails(Session(id="i", **fields))  # type: ignore[arg-type]


def accessed(*accesses: Access, **fields: object) -> SessionDetails:
    return SessionDetails(Session(id="i"), accesses=accesses, **fields)  # type: ignore[arg-type]


# --- times and flags ---


@pytest.mark.parametrize(("age", "found"), [(86_399, False), (86_404, False), (86_406, True), (10**7, True)])
def test_r2_3_long_running_is_a_day_by_default(age: int, found: bool) -> None:
    assert applies("LongRunning", session(created_at=ago(age))) is found
    assert applies("LongRunning", session(created_at=ago(age)), after_seconds=10**8) is False


def test_r2_3_a_session_whose_beginning_is_not_known_is_not_long() -> None:
    assert not applies("LongRunning", session())


@pytest.mark.parametrize(("ahead", "found"), [(-1, False), (0, False), (5, False), (6, True), (10**6, True)])
def test_r4_5_times_beyond_the_skew_are_in_the_future(ahead: int, found: bool) -> None:
    assert applies("FutureTime", session(created_at=ago(-ahead), last_accessed_at=ago(9))) is found
    assert applies("FutureTime", session(created_at=ago(99), last_accessed_at=ago(-ahead))) is found
    assert applies("FutureTime", session(last_accessed_at=ago(-ahead))) is found


def test_r4_5_revoked_and_ownerless() -> None:
    assert applies("Revoked", SessionDetails(Session("i"), revoked=True))
    assert not applies("Revoked", SessionDetails(Session("i")))
    assert applies("Ownerless", session())
    assert applies("Ownerless", session(user_id=""))
    assert not applies("Ownerless", session(user_id="a"))
    assert not applies("Ownerless", session(user_id=0))


# --- travel ---

PLACES = st.builds(GeoPoint, st.floats(-90, 90), st.floats(-180, 180))


@given(PLACES, PLACES, PLACES)
def test_distance_is_a_metric_on_a_sphere(a: GeoPoint, b: GeoPoint, c: GeoPoint) -> None:
    half_way_round = 6371.0088 * pi
    assert 0 <= distance_kilometers(a, b) <= half_way_round + 1e-6
    assert distance_kilometers(a, b) == pytest.approx(distance_kilometers(b, a))
    assert distance_kilometers(a, a) == 0
    assert distance_kilometers(a, c) <= distance_kilometers(a, b) + distance_kilometers(b, c) + 1e-3


def test_distances_of_known_places() -> None:
    assert distance_kilometers(BERLIN, PARIS) == pytest.approx(878, abs=2)
    assert distance_kilometers(PARIS, NEW_YORK) == pytest.approx(5837, abs=5)
    assert distance_kilometers(GeoPoint(0, 179.9), GeoPoint(0, -179.9)) == pytest.approx(22.2, abs=0.1)


@pytest.mark.parametrize(("seconds", "found"), [(0, True), (3600, True), (3601, False), (9 * 3600, False)])
def test_r4_4_over_1000_km_within_an_hour(seconds: int, found: bool) -> None:
    accesses = [Access(ago(0), place=NEW_YORK), Access(ago(seconds), place=PARIS)]
    assert applies("ImpossibleTravel", accessed(*accesses)) is found
    assert applies("ImpossibleTravel", accessed(*reversed(accesses))) is found
    assert not applies("ImpossibleTravel", accessed(*accesses), kilometers=6000)


def test_r4_4_a_train_from_paris_to_berlin_is_possible() -> None:
    assert not applies("ImpossibleTravel", accessed(Access(ago(0), place=BERLIN), Access(ago(60), place=PARIS)))


def test_r4_4_stops_in_between_do_not_hide_a_journey() -> None:
    """Each leg is under 1,000 km, the whole is not."""
    legs = [GeoPoint(0, 0), GeoPoint(0, 8), GeoPoint(0, 16)]
    assert distance_kilometers(legs[0], legs[1]) < 1000 < distance_kilometers(legs[0], legs[2])
    accesses = [Access(ago(60 * n), place=place) for n, place in enumerate(legs)]
    assert applies("ImpossibleTravel", accessed(*accesses))


@given(st.lists(st.tuples(st.integers(0, 9000), PLACES), max_size=12))
def test_r4_4_travel_agrees_with_looking_at_every_pair(visits: list[tuple[int, GeoPoint]]) -> None:
    details = accessed(*(Access(ago(t), place=place) for t, place in visits))
    expected = any(
        abs(t1 - t2) <= 3600 and distance_kilometers(p1, p2) > 1000 for t1, p1 in visits for t2, p2 in visits
    )
    assert applies("ImpossibleTravel", details) is expected


# --- address and client ---


@pytest.mark.parametrize(
    ("first", "now", "found"),
    [
        ("192.0.2.1", "192.0.2.1", False),
        ("192.0.2.1", "192.0.2.1:4711", False),
        ("192.0.2.1", "::ffff:192.0.2.1", False),
        ("192.0.2.1/32", "192.0.2.1, 10.0.0.1", False),
        ("2001:db8::1", "[2001:0db8:0:0::1]:443", False),
        ("192.0.2.1", "192.0.2.9", True),  # within its /24 it still is another address
        ("2001:db8::1", "2001:db8::2", True),
        ("192.0.2.1", "2001:db8::1", True),
        ("192.0.2.1", "no address", False),
    ],
)
def test_r4_4_address_change(first: str, now: str, found: bool) -> None:
    assert applies("AddressChange", accessed(Access(address=now), address=first)) is found
    # Without a column, the oldest entry tells where it began.
    assert applies("AddressChange", accessed(Access(address=now), Access(address=first))) is found
    assert applies("AddressChange", accessed(Access(), Access(address=now), address=first)) is found


def test_r4_4_an_address_change_is_reported_and_no_more_by_default() -> None:
    (rule,) = (r for r in DEFAULT_RULES if r.type is RuleType.ADDRESS_CHANGE)
    assert rule.action is RuleAction.REPORT


CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{} Safari/537.36"
ON_MAC = CHROME.replace("Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7")


@pytest.mark.parametrize(
    ("first", "now", "found"),
    [
        (CHROME.format("120.0"), CHROME.format("121.0.6167.85"), False),
        (CHROME.format("120.0"), ON_MAC.format("120.0"), True),
        (CHROME.format("120.0"), CHROME.format("120.0") + " Edg/120.0", True),
        ("ShopApp/1.2", "ShopApp/2.0.1", False),
        ("ShopApp/1.2", "OtherApp/1.2", True),
        ("curl/8.0", "curl/8.1", False),
    ],
)
def test_r4_4_client_change_is_more_than_an_update(first: str, now: str, found: bool) -> None:
    assert applies("ClientChange", accessed(Access(client=now), client=first)) is found
    assert applies("ClientChange", accessed(Access(client=now), Access(client=first))) is found


# --- bursts ---

TIMES = st.lists(st.integers(0, 300), max_size=40)


@given(TIMES, st.integers(1, 10), st.integers(0, 120))
def test_r4_4_a_burst_is_more_than_the_count_within_the_time(offsets: list[int], normal: int, within: int) -> None:
    expected = any(sum(start <= t <= start + within for t in offsets) > normal for start in offsets)
    times = [ago(t) for t in offsets]
    assert has_burst(times, normal, timedelta(seconds=within)) is expected
    assert bool(burst_spans(times, normal, timedelta(seconds=within))) is expected


def with_bursts(bursts: dict[str, list[Span]]) -> LoginBurst:
    detector = LoginBurst(SessionRule(type=RuleType.LOGIN_BURST))
    detector.bursts = bursts
    return detector


@given(TIMES, st.integers(1, 10), st.integers(0, 120))
def test_r4_4_who_belongs_to_a_burst(offsets: list[int], normal: int, within: int) -> None:
    detector = with_bursts({"u": burst_spans([ago(t) for t in offsets], normal, timedelta(seconds=within))})
    for t in offsets:
        windows = [[o for o in offsets if start <= o <= start + within] for start in offsets]
        expected = any(t in window and len(window) > normal for window in windows)
        assert detector.matches(session(user_id="u", created_at=ago(t)), NOW) is expected
        assert not detector.matches(session(user_id="v", created_at=ago(t)), NOW)


def test_r4_4_request_burst_counts_the_accesses() -> None:
    details = accessed(*(Access(ago(n)) for n in range(11)))
    assert applies("RequestBurst", details, count=10, within_seconds=10)
    assert not applies("RequestBurst", details, count=11, within_seconds=10)
    assert not applies("RequestBurst", details, count=10, within_seconds=9)


def test_r4_4_login_burst_asks_when_sessions_of_the_user_began() -> None:
    detector = with_bursts({"a": [(ago(60), ago(30))]})
    assert detector.matches(session(user_id="a", created_at=ago(45)), NOW)
    assert not detector.matches(session(user_id="a", created_at=ago(61)), NOW)
    assert not detector.matches(session(user_id="b", created_at=ago(45)), NOW)


# --- several rules ---


def test_the_most_severe_action_is_taken() -> None:
    report, again, delete, everywhere = (
        make_detector(SessionRule(type=RuleType.REVOKED, action=action))
        for action in (RuleAction.REPORT, RuleAction.REPORT, RuleAction.DELETE, RuleAction.LOGOUT_EVERYWHERE)
    )
    assert most_severe([report, delete, again]) is delete
    assert most_severe([everywhere, delete, report]) is everywhere


def test_a_session_may_break_several_rules() -> None:
    details = SessionDetails(Session("i", created_at=ago(10**7)), revoked=True)
    found = matching([make_detector(rule, SKEW) for rule in DEFAULT_RULES], details, NOW)
    assert [detector.rule.type for detector in found] == [RuleType.REVOKED, RuleType.LONG_RUNNING]


def test_a_rule_tells_what_must_be_mapped() -> None:
    rule = SessionRule(type=RuleType.LOGIN_BURST)
    assert missing_fields(rule, {RequiredField.USER_ID}) == ["columns.createdAt"]
    assert missing_fields(rule, {RequiredField.USER_ID, RequiredField.CREATED_AT}) == []


def test_only_as_much_of_a_log_is_read_as_the_rules_look_at() -> None:
    revoked, travel, burst = (
        make_detector(SessionRule.model_validate(rule))
        for rule in ({"type": "Revoked"}, {"type": "ImpossibleTravel"}, {"type": "RequestBurst", "count": 2000})
    )
    assert log_entries_to_read([revoked]) == 0
    assert 0 < log_entries_to_read([travel]) < log_entries_to_read([travel, burst]) <= MAX_LOG_ENTRIES
    assert log_entries_to_read([burst]) > 2000
