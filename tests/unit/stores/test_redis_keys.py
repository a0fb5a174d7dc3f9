"""Key templates: what is a session's key, and what is not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.mapping import RedisKeys
from stores.model.errors import ConfigurationError
from stores.redis.keys import LOCK_PREFIX, KeyNames, KeyTemplate, pattern_for

IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20) | st.sampled_from(
    ["*", "a*b", "[x]", "a?c", "\\", "a:b:c", "é", "日本", "a\nb", "\r\n", "\0", "{id}"]
)
AFFIXES = st.text(st.sampled_from("ab:*?[]\\{}-é\n"), max_size=6)
TEMPLATE_OF_ID = st.tuples(AFFIXES, AFFIXES).map(lambda parts: KeyTemplate(parts[0].encode(), parts[1].encode()))


def names(session: str, user_index: str | None = None, access_log: str | None = None) -> KeyNames:
    return KeyNames.parse(RedisKeys(session=session, user_index=user_index, access_log=access_log))


@given(TEMPLATE_OF_ID, IDS)
def test_r3_3_an_id_survives_the_way_to_its_key_and_back(template: KeyTemplate, session_id: str) -> None:
    assert template.name(template.key(session_id)) == session_id


@given(TEMPLATE_OF_ID, st.binary(max_size=30))
def test_r3_3_only_the_key_an_id_makes_is_read_as_that_id(template: KeyTemplate, key: bytes) -> None:
    name = template.name(key)
    assert name is None or template.key(name) == key


@pytest.mark.parametrize(
    "key", [b"sess:", b"other:1", b"Sess:1", b"sess", b"sess:\xff\xfe", b"xsess:1", b"sess:\xed\xa0\x80"]
)
def test_what_is_not_of_the_template_or_not_utf8_has_no_id(key: bytes) -> None:
    assert names("sess:{id}").session_id(key) is None


def test_prefix_and_suffix_may_not_share_characters() -> None:
    template = KeyTemplate.parse("aba{id}aba", "{id}")
    assert template.name(b"aba") is None
    assert template.name(b"ababa") is None
    assert template.name(b"abaxaba") == "x"


def test_glob_characters_of_a_template_are_escaped() -> None:
    assert KeyTemplate.parse(r"a*b[c]?\{id}]", "{id}").pattern == rb"a\*b\[c\]\?\\*\]"


@given(IDS)
def test_r3_3_a_key_that_is_also_an_access_log_is_no_session_key(session_id: str) -> None:
    both = names("sess:{id}", access_log="sess:{id}:log")
    log = both.access_log_key(session_id)
    assert log is not None
    assert both.session_id(log) is None
    assert both.session_key(f"{session_id}:log") is None


@given(IDS)
def test_r3_3_a_key_that_is_also_a_user_index_is_no_session_key(user_id: str) -> None:
    both = names("s:{id}", user_index="s:user:{user}")
    index = both.user_index_key(user_id)
    assert index is not None
    assert both.session_id(index) is None
    assert both.session_key(f"user:{user_id}") is None
    assert both.session_key("user:") is not None


def test_an_access_log_that_would_be_an_index_is_none() -> None:
    both = names("s:{id}", user_index="x:{user}", access_log="x:log:{id}")
    assert both.access_log_key("1") is None


@pytest.mark.parametrize(
    ("templates", "field"),
    [
        ({"session": "sess:{id}", "access_log": "sess:{id}"}, "accessLog"),
        ({"session": "sess:{id}", "user_index": "se{user}"}, "userIndex"),
        ({"session": "a:{id}:b", "access_log": "{id}"}, "accessLog"),
    ],
)
def test_templates_that_leave_no_session_key_are_refused(templates: dict[str, str], field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"stores.redis.keys.*{field}"):
        KeyNames.parse(RedisKeys.model_validate(templates))


def test_without_an_id_or_a_template_there_is_no_key() -> None:
    plain = names("sess:{id}")
    assert plain.session_key("") is None
    assert plain.access_log_key("1") is None
    assert plain.user_index_key("1") is None


def test_an_id_that_utf8_cannot_write_makes_a_key_of_its_own_and_no_error() -> None:
    plain = names("sess:{id}")
    key = plain.session_key("\ud800")
    assert key is not None
    assert plain.session_id(key) is None


TEMPLATES = st.tuples(AFFIXES, AFFIXES).map(lambda parts: KeyTemplate(parts[0].encode(), parts[1].encode()))
SOME_NAMES = st.builds(KeyNames, TEMPLATE_OF_ID, st.none() | TEMPLATES, st.none() | TEMPLATES)
LOCK = KeyTemplate(LOCK_PREFIX, b"")


def keys_near(found: KeyNames) -> st.SearchStrategy[bytes]:
    """Keys that are of one of the templates, or nearly so."""
    templates = [t for t in (found.session, found.user_index, found.access_log, LOCK) if t is not None]
    parts = st.binary(max_size=6) | IDS.map(str.encode)
    return st.builds(lambda t, part: bytes(t.prefix + part + t.suffix), st.sampled_from(templates), parts) | st.binary()


@given(st.data())
def test_r3_3_many_keys_are_read_as_each_of_them_is(data: st.DataObject) -> None:
    found = data.draw(SOME_NAMES)
    keys = data.draw(st.lists(keys_near(found), max_size=8))
    assert found.session_ids(keys) == [i for key in keys if (i := found.session_id(key)) is not None]
    owners = [written.decode(errors="replace") for written in found.access_log_session_ids(keys)]
    assert [o for o in owners if "\ufffd" not in o] == [
        i for key in keys if (i := found.access_log_session_id(key)) is not None and "\ufffd" not in i
    ]
    named = found.session_keys_in(keys)
    assert found.session_ids(named) == found.session_ids(keys)
    others = [t for t in (found.user_index, found.access_log) if t is not None]
    assert named == [
        key
        for key in keys
        if found.session.matches(key) and not key.startswith(LOCK_PREFIX) and not any(t.matches(key) for t in others)
    ]
    index = found.user_index
    if index is not None:
        assert index.readable(keys) == [key for key in keys if index.name(key) is not None]


@given(st.data())
def test_r3_3_many_ids_make_the_keys_that_each_of_them_makes(data: st.DataObject) -> None:
    found = data.draw(SOME_NAMES)
    ids = data.draw(st.lists(IDS | st.sampled_from(["", "\ud800"]), max_size=8))
    if others := [t for t in (found.user_index, found.access_log) if t is not None]:
        # An id that makes the session's key one of another template, if any does.
        ids += [t.key("x")[len(found.session.prefix) :].decode(errors="replace") for t in others]
    each = {i: key for i in ids if (key := found.session_key(i)) is not None}
    assert found.session_keys(ids) == each
    logs = {i: found.access_log_key(i) for i in ids}
    assert found.access_log_keys(ids) == {i: key for i, key in logs.items() if key is not None}
    written = [i.encode("utf-8", "surrogatepass") for i in ids]
    assert found.session_keys_of(written) == {key: i.encode("utf-8", "surrogatepass") for i, key in each.items()}


@given(st.lists(TEMPLATES, min_size=1, max_size=3), st.binary(max_size=8), st.data())
def test_r3_3_one_pattern_finds_the_keys_of_all_templates(
    templates: list[KeyTemplate], part: bytes, data: st.DataObject
) -> None:
    """What Redis itself makes of the pattern: tests/stores/test_redis_store.py."""
    template = data.draw(st.sampled_from(templates))
    assert glob(pattern_for(templates)).fullmatch(template.prefix + part + template.suffix)


def test_r3_3_the_pattern_of_several_templates_finds_little_else() -> None:
    templates = [KeyTemplate(b"sess:", b""), KeyTemplate(b"user_sess:", b""), KeyTemplate(b"access_log:", b"")]
    found = glob(pattern_for(templates))
    assert not any(found.fullmatch(key) for key in (b"cache:page:1", b"cart:7", b"session-policy:lock:x", b"sess"))


def glob(pattern: bytes) -> re.Pattern[bytes]:
    """The part of Redis' patterns that is used: escaped characters, a choice of such, and a star."""
    words = re.findall(rb"\*|\[(?:\\.)+\]|\\.|.", pattern, re.DOTALL)
    return re.compile(b"".join(b".*" if w == b"*" else _choice(w) for w in words), re.DOTALL)


def _choice(word: bytes) -> bytes:
    characters = word[2:-1:2] if len(word) > 2 else word[-1:]
    return b"(?:" + b"|".join(re.escape(bytes([c])) for c in characters) + b")"


@given(TEMPLATES, TEMPLATES, st.binary(max_size=12))
def test_r3_3_templates_that_are_apart_share_no_key(one: KeyTemplate, other: KeyTemplate, part: bytes) -> None:
    if one.is_disjoint_from(other):
        assert other.is_disjoint_from(one)
        assert not other.matches(one.prefix + part + one.suffix)
