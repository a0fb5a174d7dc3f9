"""INSERT … SELECT … ON CONFLICT, as PostgreSQL has it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql


def insert_selected(table: sa.Table, keys: Sequence[str], rows: sa.Select[Any], adds: Collection[str]) -> Any:
    """Inserts the rows that a query finds; to the row that is there already, the new values are added.

    Args:
        table: one of the product's own.
        keys: its primary key.
        rows: its columns are named as the table's.
        adds: columns to which the new value is added.
    """
    statement = postgresql.insert(table).from_select([column.name for column in rows.selected_columns], rows)
    added = {name: table.c[name] + statement.excluded[name] for name in adds}
    return statement.on_conflict_do_update(index_elements=list(keys), set_=added)
