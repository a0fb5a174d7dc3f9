"""Ranges of a table's physical blocks, one after the other (PostgreSQL)."""

from __future__ import annotations

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
    rows = layout.rows or blocks * _ROWS_PER_BLOCK
    return min(max(1, sessions * blocks // max(1, rows if expired is None else expired)), _MOST_TO_BEGIN_WITH)


class _Tid(sa.types.UserDefinedType[str]):
    """The place of a row."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Its name."""
        return "tid"


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
        place: sa.ColumnClause[str] = sa.literal_column("ctid", _Tid())
        return sa.and_(place >= _first_of(first), place < _first_of(self._next))


def _first_of(block: int) -> sa.ColumnElement[str]:
    return sa.cast(sa.literal(f"({block},0)", sa.Text), _Tid())
