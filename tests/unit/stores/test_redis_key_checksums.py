"""Two walks are compared without a memory of what they met: nothing that differs may be taken for the same."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from stores.redis.key_checksums import KeyChecksums

KEYS = st.lists(st.binary(min_size=1, max_size=3), max_size=30)


@given(KEYS, KEYS, st.integers(0, 2**40))
def test_r3_5_what_was_not_met_equally_often_is_doubtful(ones: list[bytes], others: list[bytes], expected: int) -> None:
    sums = KeyChecksums(expected)
    sums.add(ones)
    sums.subtract(others)
    one, other = Counter(ones), Counter(others)
    different = {key for key in one | other if one[key] != other[key]}
    assert sums.differ == bool(different)
    assert different <= set(sums.possibly_different([*ones, *others]))


@given(KEYS)
def test_r3_5_the_order_is_all_the_same(keys: list[bytes]) -> None:
    sums = KeyChecksums(0)
    sums.add(keys)
    for key in sorted(keys):
        sums.subtract([key])
    assert not sums.differ
    assert sums.possibly_different(keys) == []


def test_r3_5_few_that_differ_make_few_doubtful() -> None:
    keys = [b"%d" % number for number in range(50_000)]
    sums = KeyChecksums(len(keys))
    sums.add(keys)
    sums.subtract(keys[:-500])
    doubtful = sums.possibly_different(keys)
    assert set(keys[-500:]) <= set(doubtful)
    # As many groups as keys: about one more for each.
    assert len(doubtful) < 1500
