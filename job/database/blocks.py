"""Where rows lie in a table: ranges of its physical blocks, one after the other, or single places (PostgreSQL)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from job.database.dialects.base import Layout
from job.database.stretch import Stretch

_READ_AT_ONCE = 256
_ROWS_PER_BLOCK = 50
_MOST_TO_BEGIN_WITH = 256


def blocks_with(sessions: int, expired: int | None, layout: Layout) -> int:
    """In how many blocks about so many expired sessions lie, if they lie evenly.

    Args:
        sessions: how many.
        expired: how many there are in the whole table; None where they were not counted.
        layout: of the table.
    """
    blocks = layout.blocks or 1
    rows = rows_in(layout)
    return min(max(1, sessions * blocks // max(1, rows if expired is None else expired)), _MOST_TO_BEGIN_WITH)


def rows_in(layout: Layout) -> int:
    """About how many rows a table has, also where nobody has counted them yet."""
    return layout.rows or (layout.blocks or 1) * _ROWS_PER_BLOCK


class _Tid(sa.types.UserDefinedType[str]):
    """The place of a row."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Its name."""
        return "tid"


place: sa.ColumnClause[str] = sa.literal_column("ctid", _Tid())
"""Where a version of a row lies, such as ``(12,3)``: its block, and its number in it. A later one lies elsewhere."""


def lies_at(places: Sequence[str]) -> sa.ColumnElement[bool]:
    """Whether a row lies at one of these places. The statement is the same for any number of them."""
    array = "{" + ",".join(f'"{each}"' for each in places) + "}"
    return place == sa.any_(sa.cast(sa.literal(array, sa.Text), sa.ARRAY(_Tid())))


class BlockRanges:
    """The blocks of a stretch, a range at a time.

    Rows that are appended meanwhile are not met, nor are new versions of rows that the application has just changed.

    Args:
        stretch: which blocks.
        layout: of the table.
    """

    def __init__(self, stretch: Stretch, layout: Layout) -> None:
        blocks = layout.blocks or 0
        self._next = 0 if stretch.after is None else int(stretch.after) + 1
        self._end = blocks if stretch.up_to is None else int(stretch.up_to) + 1

    def next(self, size: int = _READ_AT_ONCE) -> sa.ColumnElement[bool] | None:
        """Whether a row lies in the next so many blocks; None where there are no more."""
        if self._next >= self._end:
            return None
        first, self._next = self._next, min(self._next + size, self._end)
        return sa.and_(place >= _first_of(first), place < _first_of(self._next))


def _first_of(block: int) -> sa.ColumnElement[str]:
    return sa.cast(sa.literal(f"({block},0)", sa.Text), _Tid())
