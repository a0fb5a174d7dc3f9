"""R4.1 without a database: when a session has ended."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from policy.mapping import RedisFields
from policy.presets import RedisPreset
from policy.profiles import Lifetime
from stores.model.cutoffs import cutoffs
from stores.redis.content.java_serialization import decode_long, decode_string
from stores.redis.content.session_content import UNKNOWN, Content, from_hash, from_json
from stores.redis.redis_only.session_state import SessionState, session_state

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SKEW = 5
LIMITS = cutoffs(NOW, Lifetime(idle=1800, absolute=7200), SKEW)
AGES = st.one_of(st.none(), st.integers(-10_000, 10_000))


@given(began=AGES, used=AGES, ended=AGES, has_ttl=st.booleans())
def test_r4_1_whichever_comes_first_ends_a_session(
    began: int | None, used: int | None, ended: int | None, has_ttl: bool
) -> None:
    def at(age: int | None) -> datetime | None:
        return None if age is None else NOW - timedelta(seconds=age)

    content = Content("u", at(began), at(used), at(ended))
    verdict = session_state(content, has_ttl=has_ttl, cutoffs=LIMITS)
    too_old = began is not None and began > 7200 + SKEW
    expired = ended is not None and ended > SKEW and not has_ttl
    idle = used is not None and used > 1800 + SKEW
    assert (verdict is SessionState.ENDED) == (too_old or expired)
    assert (verdict is SessionState.LIVE) == (not too_old and not expired and not idle)


def test_nothing_known_is_nothing_held_against_it() -> None:
    assert session_state(UNKNOWN, has_ttl=False, cutoffs=LIMITS) is SessionState.LIVE


def test_dots_lead_into_objects_unless_a_field_has_that_very_name() -> None:
    fields = RedisPreset.CONNECT_REDIS.layout.fields
    content = from_json('{"cookie": {"expires": "2026-05-01T12:00:00.000Z"}, "passport": {"user": 7}}', fields)
    assert (content.user_id, content.expires_at) == ("7", NOW)
    assert from_json('{"passport.user": "x", "passport": {"user": 7}}', fields).user_id == "x"
    for odd in ('{"cookie": {"expires": null}}', '{"cookie": "x"}', '{"cookie": {"expires": {}}}', "[]"):
        assert from_json(odd, fields) == UNKNOWN


@given(st.binary(max_size=80))
def test_no_bytes_can_make_the_java_decoder_fail(value: bytes) -> None:
    for candidate in (value, b"\xac\xed\x00\x05t" + value, b"\xac\xed\x00\x05sr\x00\x0ejava.lang.Long" + value):
        decode_string(candidate)
        decode_long(candidate)
        from_hash([candidate, candidate, candidate], RedisFields())


@given(st.text(max_size=50))
def test_java_strings_are_read(text: str) -> None:
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return
    value = b"\xac\xed\x00\x05t" + struct.pack(">H", len(encoded)) + encoded
    assert decode_string(value) == text
    assert decode_string(value + b"x") is None
    assert decode_long(value) is None
