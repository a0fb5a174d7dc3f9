"""Chooses the strategy that finds the expired sessions of a table, and says why. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from policy.spec import CleanupStrategy
from stores.model.errors import ConfigurationError
from stores.model.key_range import Strategy

# 2 MB: whatever way such a table is read, it takes a few milliseconds.
_SMALL_BLOCKS = 256
_SMALL_ROWS = 20_000
# An index leads to rows that lie anywhere: each costs about as much as reading so many blocks, or rows, in turn.
_BLOCKS_PER_LOOKUP = 2
_ROWS_PER_LOOKUP = 10


@dataclass(frozen=True, slots=True)
class TableFacts:
    """The figures that a strategy is chosen by.

    Attributes:
        rows: how many sessions, by the database's statistics; None where not known.
        blocks: of the table; None where the database does not tell.
        expired: how many sessions have expired; None where not known.
        index_entries: of the expiry indexes that would be read, by the database's estimate; None where not known.
        no_index: why the sessions cannot be found by indexes; None where they can.
        no_ranges: why ranges of blocks cannot be read; None where they can.
    """

    rows: int | None = None
    blocks: int | None = None
    expired: int | None = None
    index_entries: int | None = None
    no_index: str | None = None
    no_ranges: str | None = None

    @property
    def entries_to_read(self) -> int | None:
        """How many index entries lead to the expired sessions; no fewer than there are of these."""
        known = [n for n in (self.expired, self.index_entries) if n is not None]
        return max(known) if known else None


@dataclass(frozen=True, slots=True)
class Choice:
    """A strategy, and why.

    Attributes:
        strategy: how the sessions are found.
        because: for people.
        facts: the figures behind it.
    """

    strategy: Strategy
    because: str
    facts: TableFacts

    def figures(self) -> dict[str, int]:
        """The figures that are known, as logs and `plan` show them."""
        known = {
            "rows": self.facts.rows,
            "blocks": self.facts.blocks,
            "expired": self.facts.expired,
            "indexEntries": self.facts.index_entries,
        }
        return {name: value for name, value in known.items() if value is not None}


def choose(wanted: CleanupStrategy, facts: TableFacts) -> Choice:
    """The strategy that the policy asks for or, with Auto, the one that should be fastest.

    Raises:
        ConfigurationError: the strategy that the policy asks for cannot be used here.
    """
    if wanted is CleanupStrategy.AUTO:
        strategy, because = _fastest(facts)
        return Choice(strategy, because, facts)
    strategy = Strategy(wanted.value)
    problem = {Strategy.EXPIRY_INDEX: facts.no_index, Strategy.PHYSICAL_RANGES: facts.no_ranges}.get(strategy)
    if problem:
        raise ConfigurationError(f"cleanup.strategy {wanted} cannot be used here: {problem}; choose Auto")
    return Choice(strategy, "cleanup.strategy asks for it", facts)


def _fastest(facts: TableFacts) -> tuple[Strategy, str]:
    if facts.blocks is not None and facts.blocks < _SMALL_BLOCKS:
        return Strategy.ID_ORDER, f"the table is small: {facts.blocks:,} blocks"
    if facts.blocks is None and facts.rows is not None and facts.rows < _SMALL_ROWS:
        return Strategy.ID_ORDER, f"the table is small: about {facts.rows:,} rows"
    entries = facts.entries_to_read
    if not facts.no_index and entries is not None and (few := _few(entries, facts)):
        return Strategy.EXPIRY_INDEX, few
    if not facts.no_ranges:
        why = facts.no_index or "how many sessions have expired is not known"
        if not facts.no_index and entries is not None:
            why = f"{entries:,} index entries lead to rows all over {facts.blocks or 0:,} blocks"
        return Strategy.PHYSICAL_RANGES, f"reading the table once, block by block, is faster: {why}"
    if facts.no_index or entries is None:
        why = facts.no_index or "how many sessions have expired is not known"
    else:
        why = f"about {entries:,} of {facts.rows or 0:,} rows are too many for an index"
    return Strategy.ID_ORDER, f"{why}; {facts.no_ranges}"


def _few(entries: int, facts: TableFacts) -> str | None:
    """Why an index is faster than reading everything; None where it is not."""
    if facts.blocks is not None:
        if entries * _BLOCKS_PER_LOOKUP <= facts.blocks:
            return f"about {entries:,} index entries are fewer than half the table's {facts.blocks:,} blocks"
    elif facts.rows and entries * _ROWS_PER_LOOKUP <= facts.rows:
        return f"about {entries:,} index entries are fewer than a tenth of the table's rows, about {facts.rows:,}"
    return None
