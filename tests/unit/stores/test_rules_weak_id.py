"""R4.3: ids that are too short, or follow from one another."""

from __future__ import annotations

import random
import secrets
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.rules.weak_id import id_strength


def is_weak(session_id: str, sample: list[str], bits: int = 128) -> bool:
    strength = id_strength(sample, bits)
    return strength.all_weak or len(session_id) < strength.shortest


@pytest.mark.parametrize(
    "make",
    [
        lambda: secrets.token_hex(16),
        lambda: secrets.token_hex(32),
        lambda: secrets.token_urlsafe(16),
        lambda: secrets.token_urlsafe(32),
        lambda: str(uuid.uuid4()),
        lambda: "sess-" + secrets.token_hex(16),
    ],
)
def test_r4_3_ids_of_128_random_bits_are_strong(make) -> None:  # type: ignore[no-untyped-def]
    sample = [make() for _ in range(200)]
    assert not any(is_weak(i, sample) for i in sample)
    assert all(is_weak(i, sample, bits=512) for i in sample if i.count("-") != 4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: secrets.token_hex(15),
        lambda: secrets.token_urlsafe(15),
        lambda: str(secrets.randbelow(10**38)).zfill(38),  # 126 bits in decimal digits
        lambda: "session-of-the-shop-" + secrets.token_hex(8),  # what all begin with counts for nothing
        lambda: "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=20)),
    ],
)
def test_r4_3_shorter_ids_are_weak(make) -> None:  # type: ignore[no-untyped-def]
    sample = [make() for _ in range(200)]
    assert all(is_weak(i, sample) for i in sample)


@given(st.integers(16, 256), st.integers(2, 80), st.integers(0, 2**32))
def test_r4_3_the_length_in_bits_decides(bits: int, digits: int, seed: int) -> None:
    """Hexadecimal digits have four bits each, and nothing else counts."""
    source = random.Random(seed)
    sample = ["0123456789abcdef"] + ["".join(source.choices("0123456789abcdef", k=64)) for _ in range(50)]
    session_id = "".join(source.choices("0123456789abcdef", k=digits))
    assert is_weak(session_id, sample, bits) == (digits * 4 < bits)


@given(
    start=st.integers(0, 10**30),
    step=st.integers(1, 999),
    width=st.integers(31, 40),
    hexadecimal=st.booleans(),
    prefix=st.sampled_from(["", "s:", "session_"]),
    jumbled=st.randoms(use_true_random=False),
)
def test_r4_3_ids_that_are_counted_up_are_weak_however_long(
    start: int, step: int, width: int, hexadecimal: bool, prefix: str, jumbled: random.Random
) -> None:
    numbers = [start + n * step for n in range(60)]
    sample = [prefix + (f"{n:0{width}x}" if hexadecimal else f"{n:0{width}}") for n in numbers]
    jumbled.shuffle(sample)
    assert id_strength(sample, 64).all_weak


@given(st.lists(st.text(min_size=1), max_size=40))
def test_any_ids_can_be_judged(sample: list[str]) -> None:
    id_strength(sample, 128)


def test_r4_3_uuids_made_of_the_time_are_weak() -> None:
    assert id_strength([str(uuid.uuid1()) for _ in range(3)], 16).all_weak
    assert not id_strength([str(uuid.uuid4()) for _ in range(3)], 128).all_weak
    assert id_strength([str(uuid.uuid4()) for _ in range(3)], 129).all_weak


def test_without_ids_nothing_is_weak() -> None:
    assert not id_strength([], 1024).all_weak
