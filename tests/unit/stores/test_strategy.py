"""Which strategy is chosen from which figures."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.spec import CleanupStrategy
from stores.model.errors import ConfigurationError
from stores.model.key_range import Strategy
from stores.model.strategy import TableFacts, choose
from stores.sql.dialects.postgresql.block_ranges import Blocks
from stores.sql.removal.splitting import split_blocks

numbers = st.one_of(st.none(), st.integers(0, 10**9))
reasons = st.one_of(st.none(), st.just("it does not go"))
facts = st.builds(TableFacts, numbers, numbers, numbers, numbers, reasons, reasons)

LARGE = TableFacts(rows=10_000_000, blocks=200_000, expired=10_000, index_entries=10_000)


@given(known=facts)
def test_what_cannot_be_used_is_never_chosen_and_there_is_always_a_reason(known: TableFacts) -> None:
    choice = choose(CleanupStrategy.AUTO, known)
    assert choice.because
    assert not (choice.strategy is Strategy.EXPIRY_INDEX and known.no_index)
    assert not (choice.strategy is Strategy.PHYSICAL_RANGES and known.no_ranges)
    assert all(value is not None for value in choice.figures().values())


@given(known=facts, wanted=st.sampled_from([w for w in CleanupStrategy if w is not CleanupStrategy.AUTO]))
def test_a_pinned_strategy_is_used_or_refused_and_the_refusal_names_field_and_remedy(
    known: TableFacts, wanted: CleanupStrategy
) -> None:
    problem = {"ExpiryIndex": known.no_index, "PhysicalRanges": known.no_ranges}.get(wanted.value)
    if problem is None:
        assert choose(wanted, known).strategy.value == wanted.value
        return
    with pytest.raises(ConfigurationError) as refused:
        choose(wanted, known)
    for part in ("cleanup.strategy", wanted.value, problem, "choose Auto"):
        assert part in str(refused.value)


def test_r6_few_expired_sessions_are_found_by_their_index() -> None:
    assert choose(CleanupStrategy.AUTO, LARGE).strategy is Strategy.EXPIRY_INDEX


def test_r6_many_expired_sessions_are_found_by_reading_the_table_once() -> None:
    many = replace(LARGE, expired=5_000_000)
    assert choose(CleanupStrategy.AUTO, many).strategy is Strategy.PHYSICAL_RANGES


def test_r6_without_an_index_the_table_is_read_once() -> None:
    choice = choose(CleanupStrategy.AUTO, replace(LARGE, no_index="no index begins with 'used'"))
    assert choice.strategy is Strategy.PHYSICAL_RANGES
    assert "no index begins with 'used'" in choice.because


def test_where_many_index_entries_must_be_walked_for_few_sessions_the_table_is_read_once() -> None:
    """As where a stored setting narrows the timeout of a few users."""
    choice = choose(CleanupStrategy.AUTO, replace(LARGE, index_entries=9_000_000))
    assert choice.strategy is Strategy.PHYSICAL_RANGES


def test_without_ranges_of_blocks_few_go_by_index_and_many_by_id() -> None:
    no_blocks = replace(LARGE, blocks=None, no_ranges="mysql has no ranges of blocks")
    assert choose(CleanupStrategy.AUTO, no_blocks).strategy is Strategy.EXPIRY_INDEX
    assert choose(CleanupStrategy.AUTO, replace(no_blocks, expired=5_000_000)).strategy is Strategy.ID_ORDER


def test_a_small_table_is_read_in_the_simplest_way() -> None:
    assert choose(CleanupStrategy.AUTO, TableFacts(rows=2_500, blocks=60, expired=500)).strategy is Strategy.ID_ORDER


@given(blocks=st.integers(0, 10**7), count=st.integers(1, 16))
def test_key_ranges_of_blocks_cover_the_table_without_overlap(blocks: int, count: int) -> None:
    parts = split_blocks(blocks, count)
    assert 1 <= len(parts) <= count
    assert parts[0].after is None
    assert parts[-1].up_to is None
    for one, following in pairwise(parts):
        assert one.up_to == following.after
    ends = [-1, *(int(part.up_to) for part in parts[:-1] if part.up_to is not None), blocks - 1]
    sizes = [b - a for a, b in pairwise(ends)]
    assert sum(sizes) == blocks
    assert max(sizes) - min(sizes) <= 1


@given(
    first=st.integers(0, 2**32 - 2), size=st.integers(1, 2048), block=st.integers(0, 2**32 - 1), row=st.integers(1, 300)
)
def test_a_range_of_blocks_holds_the_rows_in_its_blocks(first: int, size: int, block: int, row: int) -> None:
    blocks = Blocks(first, first + size)
    assert blocks.holds(f"({block},{row})") == (block in range(first, first + size))
    assert blocks.holds(f"({first},{row})")
    assert not blocks.holds(f"({first + size},{row})")
