"""Where the expired rows of a table lie if they are few, found by one look before the first of them goes (PostgreSQL).

A range of blocks is read by one server process, through the memory that applications share. A plain query over the
whole table is spread over several processes, and reads a large table past that memory. Its snapshot is held as long as
that of the query that has counted the sessions. Where indexes lead to the rows, one look at all indexes takes the place
of one before each transaction, and rows that share a block go together.
"""

from __future__ import annotations

import sqlalchemy as sa

from stores.sql.dialects.base import Layout
from stores.sql.mapping.expiry import Expiry
from stores.sql.mapping.table import MappedTable
from stores.sql.removal.block_ranges import place, rows_in

# With more than one in a hundred, most blocks have one of them: to know which blocks do gains nothing.
_MOST_PERCENT = 1
# They are held in memory.
_MOST_PLACES = 50_000
# 8 GB: seconds, from memory or from a disk of today. Vacuum keeps whatever has died since such a query began.
_MOST_BLOCKS = 1_048_576
# A disk that takes longer is read in ranges.
_MOST_SECONDS = 30
# PostgreSQL reckons that to look at a place takes as long as to read four blocks in turn. With more places than this,
# it might rather read the whole table again for each statement.
_BLOCKS_PER_PLACE = 8
_ALWAYS_AT_ONCE = 256


def few_by_index(walked: int | None, layout: Layout) -> bool:
    """Whether indexes lead to few enough rows to look for all of them at once.

    Args:
        walked: how many entries lead to them; None where not known.
        layout: of the table. Where it has partitions or is a view, a place alone does not say which row is meant.
    """
    return layout.no_ranges is None and walked is not None and walked <= _MOST_PLACES


def few_in_blocks(expired: int | None, layout: Layout) -> bool:
    """Whether it pays to look through the whole table for all of them.

    Args:
        expired: how many sessions have expired; None where they were not counted.
        layout: of the table.
    """
    if expired is None or not 0 < (layout.blocks or 0) <= _MOST_BLOCKS:
        return False
    return expired <= _MOST_PLACES and expired * 100 <= rows_in(layout) * _MOST_PERCENT


def most_at_once(layout: Layout) -> int:
    """How many places one statement may name."""
    return max(_ALWAYS_AT_ONCE, (layout.blocks or 0) // _BLOCKS_PER_PLACE)


def find_places(
    connection: sa.Connection, table: MappedTable, expiry: Expiry, *, by_index: bool, spread: bool
) -> list[str] | None:
    """Where all expired rows lie, in the order of the blocks; None where they are not few.

    Args:
        connection: to the database, in a transaction of its own.
        table: the session table.
        expiry: what has expired.
        by_index: whether indexes lead to them.
        spread: whether several server processes may look.

    Raises:
        sqlalchemy.exc.DBAPIError: it took too long, or the table is locked.
    """
    settings = {"statement_timeout": str(_MOST_SECONDS * 1000)}
    if by_index:
        settings["enable_seqscan"] = "off"
    if not spread:
        settings["max_parallel_workers_per_gather"] = "0"
    connection.exec_driver_sql("; ".join(f"SET LOCAL {name} = {value}" for name, value in settings.items()))
    found = sa.select(place.label("place")).where(expiry.expired, table.id.is_not(None)).limit(_MOST_PLACES + 1)
    if by_index:
        found = found.where(sa.or_(*(bound.condition for bound in expiry.index_bounds)))
    each = found.subquery("each").c.place
    places = connection.execute(sa.select(each).order_by(each)).scalars().all()
    return list(places) if len(places) <= _MOST_PLACES else None
