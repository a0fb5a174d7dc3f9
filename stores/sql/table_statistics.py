"""What is known of a table before a strategy is chosen, from statistics and query plans; reads no session."""

from __future__ import annotations

import sqlalchemy as sa

from stores.model.strategy import TableFacts
from stores.sql.dialects.base import TableLayout
from stores.sql.mapping.expiry import Expiry
from stores.sql.mapping.table import MappedTable


def layout_of(connection: sa.Connection, table: MappedTable) -> TableLayout:
    """How the table lies on disk."""
    return table.dialect.layout(connection, table.table.schema, table.table.name, table.id_index)


def facts_of(connection: sa.Connection, table: MappedTable, layout: TableLayout, expiry: Expiry) -> TableFacts:
    """What a strategy is chosen from, but for how many sessions have expired.

    Args:
        connection: to the database.
        table: the session table.
        layout: how it lies on disk.
        expiry: what has expired.
    """
    no_index = layout.no_index or _missing_index(layout, expiry)
    entries = None
    if not no_index:
        one: sa.ColumnClause[int] = sa.literal_column("1")
        queries = [sa.select(one).select_from(table.clause).where(bound.condition) for bound in expiry.index_bounds]
        estimates = [table.dialect.estimate(connection, query) for query in queries]
        entries = sum(n or 0 for n in estimates)
    return TableFacts(
        rows=layout.rows,
        blocks=layout.blocks,
        index_entries=entries,
        no_index=no_index,
        no_ranges=layout.no_ranges,
    )


def _missing_index(layout: TableLayout, expiry: Expiry) -> str | None:
    missing = [name for bound in expiry.index_bounds if (name := bound.time.mapping.name) not in layout.indexes]
    return f"no index begins with {', '.join(map(repr, missing))}" if missing else None
