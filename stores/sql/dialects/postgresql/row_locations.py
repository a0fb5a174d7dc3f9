"""Where the expired rows of a table lie if they are few, found by one query before the first of them is deleted.

A range of blocks is read by one server process, through the memory that applications share. A plain query over the
whole table is spread over several processes, and reads a large table past that memory. Its snapshot is held as long as
that of the query that has counted the sessions. Where indexes lead to the rows, one query on all indexes takes the
place of one before each transaction, and rows that share a block go together.
"""

from __future__ import annotations

import sqlalchemy as sa

from stores.sql.dialects.base import TableLayout
from stores.sql.dialects.postgresql.block_ranges import row_location, rows_in
from stores.sql.mapping.expiry import Expiry
from stores.sql.mapping.table import MappedTable

# With more than one in a hundred, most blocks have one of them: to know which blocks do gains nothing.
_MAX_PERCENT = 1
# They are held in memory.
_MAX_ROWS = 50_000
# 8 GB: seconds, from memory or from a disk of today. Vacuum keeps whatever has died since such a query began.
_MAX_BLOCKS = 1_048_576
# A disk that takes longer is read in ranges.
_MAX_SECONDS = 30
# The planner reckons that fetching a row by its location costs as much as reading four blocks in turn. With more rows
# than this, it might read the whole table again for each statement.
_BLOCKS_PER_ROW = 8
_ALWAYS_AT_ONCE = 256


def few_by_index(index_entries: int | None, layout: TableLayout) -> bool:
    """Whether indexes lead to few enough rows to look for all of them at once.

    Args:
        index_entries: how many lead to them; None where not known.
        layout: of the table. Where it has partitions or is a view, a location alone does not say which row is meant.
    """
    return layout.no_ranges is None and index_entries is not None and index_entries <= _MAX_ROWS


def few_in_blocks(expired: int | None, layout: TableLayout) -> bool:
    """Whether it pays to look through the whole table for all of them.

    Args:
        expired: how many sessions have expired; None where they were not counted.
        layout: of the table.
    """
    if expired is None or not 0 < (layout.blocks or 0) <= _MAX_BLOCKS:
        return False
    return expired <= _MAX_ROWS and expired * 100 <= rows_in(layout) * _MAX_PERCENT


def max_per_statement(layout: TableLayout) -> int:
    """How many locations one statement may name."""
    return max(_ALWAYS_AT_ONCE, (layout.blocks or 0) // _BLOCKS_PER_ROW)


def find_row_locations(
    connection: sa.Connection, table: MappedTable, expiry: Expiry, *, by_index: bool, spread: bool
) -> list[str] | None:
    """Where all expired rows lie, in the order of the blocks; None where they are not few.

    Args:
        connection: to the database, in a transaction of its own.
        table: the session table.
        expiry: what has expired.
        by_index: whether indexes lead to them.
        spread: whether several server processes may take part.

    Raises:
        sqlalchemy.exc.DBAPIError: it took too long, or the table is locked.
    """
    settings = {"statement_timeout": str(_MAX_SECONDS * 1000)}
    if by_index:
        settings["enable_seqscan"] = "off"
    if not spread:
        settings["max_parallel_workers_per_gather"] = "0"
    connection.exec_driver_sql("; ".join(f"SET LOCAL {name} = {value}" for name, value in settings.items()))
    found = sa.select(row_location.label("location")).where(expiry.expired, table.id.is_not(None)).limit(_MAX_ROWS + 1)
    if by_index:
        found = found.where(sa.or_(*(bound.condition for bound in expiry.index_bounds)))
    each = found.subquery("each").c.location
    locations = connection.execute(sa.select(each).order_by(each)).scalars().all()
    return list(locations) if len(locations) <= _MAX_ROWS else None
