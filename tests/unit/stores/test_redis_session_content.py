"""Reading a session's content: what is known, and that nothing in it can break a run."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policy.mapping import RedisFields, TimeEncoding, TimeField
from stores.redis.content.session_content import UNKNOWN, Content, from_hash, from_json, hash_fields

FIELDS = RedisFields()
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=5,
)
ALL_FIELDS = st.sampled_from(list(TimeEncoding)).map(
    lambda e: RedisFields(
        created_at=TimeField(name="createdAt", encoding=e),
        last_accessed_at=TimeField(name="lastAccessedAt", encoding=e),
    )
)


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        (TimeEncoding.EPOCH_SECONDS, NOON.timestamp()),
        (TimeEncoding.EPOCH_SECONDS, str(int(NOON.timestamp()))),
        (TimeEncoding.EPOCH_MILLISECONDS, int(NOON.timestamp() * 1000)),
        (TimeEncoding.TIMESTAMP, "2026-05-01T14:00:00+02:00"),
        (TimeEncoding.TIMESTAMP, "2026-05-01T12:00:00Z"),
        (TimeEncoding.NAIVE_TIMESTAMP, "2026-05-01T12:00:00"),
    ],
)
def test_r3_3_times_are_read_in_every_encoding_from_json_and_hashes(encoding: TimeEncoding, written: object) -> None:
    fields = RedisFields(
        user_id="user",
        created_at=TimeField(name="begun", encoding=encoding),
        last_accessed_at=TimeField(name="seen", encoding=encoding),
    )
    expected = Content("u1", NOON, NOON)
    document = {"user": "u1", "begun": written, "seen": written, "cart": [1, 2]}
    assert from_json(json.dumps(document).encode(), fields) == expected
    assert hash_fields(fields) == ["user", "begun", "seen"]
    assert from_hash([b"u1", str(written).encode(), str(written).encode()], fields) == expected


def test_a_numeric_user_id_is_spelt_as_redis_keys_spell_it() -> None:
    assert from_json('{"userId": 42}', FIELDS).user_id == "42"


@pytest.mark.parametrize("user", ["true", "null", '""', "[]", "{}", "1.5"])
def test_what_is_no_user_id_is_not_known(user: str) -> None:
    assert from_json(f'{{"userId": {user}}}', FIELDS).user_id is None


@pytest.mark.parametrize(
    "document",
    [b"", b"\xff\xfe\x00", b"not json", b"[1]", b"null", b"7", b'"text"', b"{", b"[" * 100_000, b"1" * 5_000],
)
def test_what_is_no_json_object_tells_nothing(document: bytes) -> None:
    assert from_json(document, FIELDS) == UNKNOWN


def test_a_bad_field_does_not_hide_the_good_ones() -> None:
    content = from_json(f'{{"userId": "u1", "createdAt": true, "lastAccessedAt": {NOON.timestamp()}}}', FIELDS)
    assert content == Content("u1", None, NOON)
    assert from_hash([b"\xff", b"soon", str(NOON.timestamp()).encode()], FIELDS) == Content(None, None, NOON)


@given(JSON, JSON, JSON, ALL_FIELDS)
def test_any_json_gives_content_and_no_error(
    user: object, created: object, accessed: object, fields: RedisFields
) -> None:
    document = json.dumps({"userId": user, "createdAt": created, "lastAccessedAt": accessed})
    content = from_json(document, fields)
    for moment in (content.created_at, content.last_accessed_at):
        assert moment is None or moment.tzinfo is UTC


@given(st.binary() | st.text(), ALL_FIELDS)
def test_any_text_gives_content_and_no_error(document: bytes | str, fields: RedisFields) -> None:
    from_json(document, fields)


@given(st.lists(st.none() | st.binary(), min_size=3, max_size=3), ALL_FIELDS)
def test_any_hash_gives_content_and_no_error(values: list[bytes | None], fields: RedisFields) -> None:
    from_hash(values, fields)


@given(JSON.map(json.dumps) | st.text(), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
@example('{"userId": "\\ud800", "createdAt": 1}', "utf-8")
@example('{"userId": "u", "userId": "v", "cart": NaN}', "utf-8")
@example("[" * 300 + "]" * 300, "utf-8")
@example('{"userId": 123456789012345678901234567890}', "utf-16")
def test_r3_3_json_says_what_the_standard_library_reads_in_it(document: str, encoding: str) -> None:
    written = document.encode(encoding, "surrogatepass")
    try:
        read = json.loads(written)
    except (ValueError, RecursionError):
        read = None
    known = {name: read[name] for name in hash_fields(FIELDS) if name in read} if isinstance(read, dict) else {}
    assert from_json(written, FIELDS) == from_json(json.dumps(known), FIELDS)
