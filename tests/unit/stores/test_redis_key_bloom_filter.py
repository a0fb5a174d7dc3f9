"""Which keys were noted: none is ever overlooked, and few others are taken for one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stores.redis.key_bloom_filter import KeyBloomFilter


@given(st.sets(st.binary()), st.lists(st.binary()))
def test_r3_5_every_noted_key_is_known_again(noted: set[bytes], others: list[bytes]) -> None:
    marks = KeyBloomFilter()
    marks.add(noted)
    assert bool(marks) == bool(noted)
    assert noted <= set(marks.matching([*others, *noted]))


def test_r3_5_few_others_are_taken_for_noted_ones() -> None:
    marks = KeyBloomFilter()
    marks.add(b"noted-%d" % n for n in range(10_000))
    # One in 420 on average.
    assert len(marks.matching([b"other-%d" % n for n in range(100_000)])) < 1_000
