"""Where rows lie in a table, by ``ctid``: ranges of its blocks, one after the other, or single rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from stores.model.key_range import KeyRange
from stores.sql.dialects.base import TableLayout

_READ_AT_ONCE = 256
_ROWS_PER_BLOCK = 50
_MOST_TO_BEGIN_WITH = 256


def blocks_with(sessions: int, expired: int | None, layout: TableLayout) -> int:
    """In how many blocks about so many expired sessions lie, if they lie evenly.

    Args:
        sessions: how many.
        expired: how many there are in the whole table; None where they were not counted.
        layout: of the table.
    """
    blocks = layout.blocks or 1
    rows = rows_in(layout)
    return min(max(1, sessions * blocks // max(1, rows if expired is None else expired)), _MOST_TO_BEGIN_WITH)


def rows_in(layout: TableLayout) -> int:
    """About how many rows a table has, also where nobody has counted them yet."""
    return layout.rows or (layout.blocks or 1) * _ROWS_PER_BLOCK


class _Tid(sa.types.UserDefinedType[str]):
    """The location of a row."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Its name."""
        return "tid"


row_location: sa.ColumnClause[str] = sa.literal_column("ctid", _Tid())
"""Where a version of a row lies, such as ``(12,3)``: its block, and its number in it. A later one lies elsewhere."""


_LOCATIONS = "row_locations"


def _one_of(array: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    return row_location == sa.any_(sa.cast(array, sa.ARRAY(_Tid())))


at_locations = _one_of(sa.bindparam(_LOCATIONS, type_=sa.Text()))
"""Whether a row lies at one of the locations of :func:`location_values`: one statement for any number of them."""


def location_values(locations: Sequence[str]) -> dict[str, str]:
    """What :data:`at_locations` is to be given."""
    return {_LOCATIONS: "{" + ",".join(f'"{each}"' for each in locations) + "}"}


def lies_at(locations: Sequence[str]) -> sa.ColumnElement[bool]:
    """Whether a row lies at one of these locations."""
    return _one_of(sa.literal(location_values(locations)[_LOCATIONS], sa.Text))


_FIRST, _END = "first_location", "end_location"


def _between(first: sa.ColumnElement[str], end: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    return sa.and_(row_location >= sa.cast(first, _Tid()), row_location < sa.cast(end, _Tid()))


in_blocks = _between(sa.bindparam(_FIRST, type_=sa.Text()), sa.bindparam(_END, type_=sa.Text()))
"""Whether a row lies in some blocks, given :attr:`Blocks.values`: all ranges share one statement."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A range of blocks.

    Attributes:
        first: the first.
        end: the one behind the last.
    """

    first: int
    end: int

    @property
    def values(self) -> dict[str, str]:
        """What :data:`in_blocks` is to be given."""
        return {_FIRST: f"({self.first},0)", _END: f"({self.end},0)"}

    @property
    def condition(self) -> sa.ColumnElement[bool]:
        """Whether a row lies in it."""
        first, end = (sa.literal(at, sa.Text()) for at in self.values.values())
        return _between(first, end)

    def holds(self, at: str) -> bool:
        """Whether a :data:`row_location` lies in it."""
        return self.first <= int(at[1:].partition(",")[0]) < self.end


class BlockRanges:
    """The blocks of a part of the table, a range at a time.

    Rows that are appended meanwhile are not met, nor are new versions of rows that the application has just changed.

    Args:
        key_range: which part.
        layout: of the table.
    """

    def __init__(self, key_range: KeyRange, layout: TableLayout) -> None:
        blocks = layout.blocks or 0
        self._next = 0 if key_range.after is None else int(key_range.after) + 1
        self._end = blocks if key_range.up_to is None else int(key_range.up_to) + 1

    def next(self, size: int = _READ_AT_ONCE) -> Blocks | None:
        """The next so many blocks; None where there are no more."""
        if self._next >= self._end:
            return None
        first, self._next = self._next, min(self._next + size, self._end)
        return Blocks(first, self._next)
