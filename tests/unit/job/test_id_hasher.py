"""R2: session ids and users never appear in clear; their hashes let an auditor follow one session."""

from __future__ import annotations

import hmac
import re
import uuid

from hypothesis import given
from hypothesis import strategies as st

from job.logs.id_hasher import IdHasher
from tests.support.runs import Log

KEY = b"0123456789abcdef"
IDS = st.text(min_size=1)


@given(IDS)
def test_r2_the_same_id_has_the_same_hash_with_the_same_key_only(text: str) -> None:
    one, again, other = IdHasher(KEY), IdHasher(KEY), IdHasher(b"another key of 16+")
    assert one.session(text) == again.session(text) != other.session(text)
    assert one.user(text) == again.user(text) != other.user(text)


@given(IDS)
def test_r2_a_hash_tells_nothing_but_its_kind(text: str) -> None:
    hashed = IdHasher(KEY).session(text)
    assert re.fullmatch(r"s:[0-9a-f]{20}", hashed)
    # A session whose id happens to be a user's id is not linked to that user.
    assert hashed[2:] != (IdHasher(KEY).user(text) or "")[2:]


@given(IDS, st.binary(min_size=1, max_size=200))
def test_a_hash_is_the_usual_keyed_one(text: str, key: bytes) -> None:
    """An auditor can compute it, with any tool."""
    expected = hmac.new(key, f"session:{text}".encode("utf-8", "surrogatepass"), "sha256").hexdigest()[:20]
    assert IdHasher(key).session(text) == f"s:{expected}"


def test_ids_of_any_type_hash_as_redis_spells_them() -> None:
    identities, number = IdHasher(KEY), uuid.uuid4()
    assert identities.session(number) == identities.session(str(number))
    assert identities.user(7) == identities.user("7")
    assert identities.user(None) is None


def test_without_a_key_hashes_hold_for_one_run() -> None:
    one, other = (IdHasher.from_environment({}, Log()) for _ in range(2))
    assert one.session("a") == one.session("a") != other.session("a")


def test_the_key_comes_from_the_environment_and_a_short_one_is_told() -> None:
    log = Log()
    long = IdHasher.from_environment({"LOG_HASH_KEY": KEY.decode() + "\n"}, log)
    assert long.session("a") == IdHasher(KEY).session("a")
    assert log.events == []
    IdHasher.from_environment({"LOG_HASH_KEY": "hunter2"}, log)
    (warning,) = log.named("hash key too short")
    assert "LOG_HASH_KEY" in warning["because"]
    assert "hunter2" not in str(warning)
