"""Splits a table into key ranges of about the same size, for several workers."""

from __future__ import annotations

import sqlalchemy as sa

from stores.model.key_range import KeyRange, Strategy
from stores.sql.mapping.table import MappedTable
from stores.sql.removal.scans import Fetch

# In a range. In a table of less than two of them, a second worker would mostly begin when all is done. It might pay
# nevertheless where a trigger or a disk makes each row slow, but that is not known beforehand.
_MIN_BLOCKS = 64


def split_blocks(blocks: int, count: int) -> list[KeyRange]:
    """Splits a table into ranges of blocks; the last is open: each worker looks up by itself where the table ends."""
    count = max(1, min(count, blocks // _MIN_BLOCKS))
    last = [blocks * n // count - 1 for n in range(1, count)]
    return [KeyRange(Strategy.PHYSICAL_RANGES, *ends) for ends in zip([None, *last], [*last, None], strict=True)]


def split_ids(table: MappedTable, rows: int, count: int, fetch: Fetch) -> list[KeyRange]:
    """Splits a table into ranges of ids, by reading the ids once.

    Args:
        table: the session table.
        rows: about how many there are.
        count: into how many parts.
        fetch: runs a query in a transaction of its own.
    """
    key = table.id
    query = sa.select(key).where(key.is_not(None)).order_by(key).offset(max(1, rows // count)).limit(1)
    last: list[str] = []
    after = query
    while len(last) < count - 1 and (found := fetch(after)):
        last.append(str(found[0][0]))
        after = query.where(key > sa.literal(found[0][0], key.type))
    return [KeyRange(Strategy.ID_ORDER, *ends) for ends in zip([None, *last], [*last, None], strict=True)]
