"""How much a transaction does, and how long a run rests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.waiting.pacing import TARGET_BESIDE_OTHERS_SECONDS, TARGET_SECONDS, Pace, rest_seconds, target_seconds

sizes = st.integers(1, 10_000)
seconds = st.floats(0, 100, allow_nan=False)


@st.composite
def paces(draw: st.DrawFn) -> Pace:
    least, size, most = sorted(draw(st.tuples(sizes, sizes, sizes)))
    return Pace(size, least, most)


@given(pace=paces(), done=st.integers(0, 10_000), took=seconds)
def test_a_size_keeps_within_its_bounds_and_grows_fourfold_at_most(pace: Pace, done: int, took: float) -> None:
    size = pace.after(done, took).size
    assert pace.least <= size <= pace.most
    assert size <= 4 * max(pace.size, done)


@given(pace=paces(), took=st.floats(TARGET_SECONDS * 1.1, 100))
def test_r6_what_takes_too_long_is_made_smaller(pace: Pace, took: float) -> None:
    size = pace.after(pace.size, took).size
    assert size < pace.size or pace.size <= max(pace.least, 5)


@given(pace=paces(), done=sizes, took=seconds)
def test_a_remainder_that_was_quick_makes_nothing_larger(pace: Pace, done: int, took: float) -> None:
    if done < pace.size:
        assert pace.after(done, took).size <= pace.size


@given(
    per_second=st.floats(1_000, 1_000_000),
    begin=sizes,
    target=st.sampled_from([TARGET_SECONDS, TARGET_BESIDE_OTHERS_SECONDS]),
)
def test_r6_the_size_settles_where_a_transaction_takes_the_target_time(
    per_second: float, begin: int, target: float
) -> None:
    pace = Pace(begin, 1, 1_000_000)
    for _ in range(40):
        pace = pace.after(pace.size, pace.size / per_second, target)
    assert pace.size == pytest.approx(per_second * target, rel=0.05, abs=1)


def test_r6_when_others_begin_to_write_the_very_next_transaction_is_short() -> None:
    pace = Pace(1000, 1, 10_000).after(1000, TARGET_SECONDS, TARGET_BESIDE_OTHERS_SECONDS)
    assert pace.size / 1000 * TARGET_SECONDS == pytest.approx(TARGET_BESIDE_OTHERS_SECONDS)


@pytest.mark.parametrize(
    ("written", "in_seconds", "expected"),
    [
        (0, 0.5, TARGET_SECONDS),
        (-200, 0.5, TARGET_SECONDS),
        (4, 0.05, TARGET_SECONDS),
        (5, 0.05, TARGET_BESIDE_OTHERS_SECONDS),
        (99, 10, TARGET_SECONDS),
        (100, 10, TARGET_BESIDE_OTHERS_SECONDS),
    ],
)
def test_r6_transactions_are_short_while_others_write_ten_times_a_second(
    written: int, in_seconds: float, expected: float
) -> None:
    assert target_seconds(written, in_seconds) == expected


@given(size=sizes, done=sizes, took=seconds)
def test_a_fixed_size_stays(size: int, done: int, took: float) -> None:
    assert Pace(size, 1, 10_000, adapts=False).after(done, took).size == size


@given(busy=seconds, percent=st.integers(1, 100))
def test_r6_work_takes_no_more_than_its_share_of_the_time(busy: float, percent: int) -> None:
    rest = rest_seconds(busy, percent)
    assert rest >= 0
    assert busy == pytest.approx((busy + rest) * percent / 100)


def test_without_a_bound_there_is_no_rest() -> None:
    assert rest_seconds(5, 100) == 0
