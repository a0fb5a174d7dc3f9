"""Foreign keys that point at the session table: which rows must be deleted or detached before a session can be."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from stores.sql.dialects import dialect_of

_CASCADES = ("CASCADE", "SET NULL", "SET DEFAULT")


@dataclass(frozen=True, slots=True)
class Reference:
    """One foreign key of another table.

    Attributes:
        schema: of the table that has the key; None for the connection's.
        table: the table that has the key.
        columns: its columns.
        refers_to: the session table's columns that they refer to, in the same order.
        cascades: whether the database itself sees to the rows when a session goes.
        optional: whether a row can do without its session: all the columns may be NULL.
        indexed: whether an index finds the rows of a session.
    """

    schema: str | None
    table: str
    columns: tuple[str, ...]
    refers_to: tuple[str, ...]
    cascades: bool
    optional: bool
    indexed: bool

    def release(self, keys: Collection[tuple[Any, ...]]) -> sa.Delete | sa.Update:
        """Deletes or detaches the rows that refer to the sessions with these keys.

        A row whose columns may be NULL is kept and detached: it may be a user's account or an order. Any other is part
        of the session, and is deleted with it. What refers to *that* row must cascade; if
        it does not, the database refuses, and the session stays.
        """
        columns: list[sa.ColumnClause[Any]] = [sa.column(sa.quoted_name(name, quote=True)) for name in self.columns]
        schema = sa.quoted_name(self.schema, quote=True) if self.schema else None
        table = sa.table(sa.quoted_name(self.table, quote=True), *columns, schema=schema)
        one = len(columns) == 1
        which = table.c[0].in_([key[0] for key in keys]) if one else sa.tuple_(*table.c).in_(list(keys))
        if self.optional:
            return sa.update(table).where(which).values({c: sa.null() for c in table.c})
        return sa.delete(table).where(which)


def references(inspector: sa.Inspector, schema: str | None, table: str) -> tuple[list[Reference], bool]:
    """The foreign keys of other tables that point at this one, and whether the table also points at itself.

    A session is never deleted for another one's sake, so a table's reference to itself is not among them.
    """
    connection = inspector.bind
    assert isinstance(connection, sa.Connection)
    keys: dict[tuple[str | None, str, str], list[tuple[str, str, str]]] = {}
    itself = False
    for row in dialect_of(connection).foreign_key_columns(connection, schema, table):
        if row.is_itself:
            itself = itself or row.on_delete not in _CASCADES
        else:
            keys.setdefault((row.schema, row.table, row.constraint), []).append(
                (row.column, row.refers_to, row.on_delete)
            )
    found = []
    for (child_schema, child, _), parts in keys.items():
        columns = tuple(column for column, _, _ in parts)
        nullable = {c["name"]: bool(c["nullable"]) for c in inspector.get_columns(child, schema=child_schema)}
        found.append(
            Reference(
                schema=child_schema,
                table=child,
                columns=columns,
                refers_to=tuple(refers_to for _, refers_to, _ in parts),
                cascades=parts[0][2] in _CASCADES,
                optional=all(nullable.get(name, False) for name in columns),
                indexed=has_index(inspector, child_schema, child, columns),
            )
        )
    return found, itself


def has_index(inspector: sa.Inspector, schema: str | None, table: str, columns: Collection[str]) -> bool:
    """Whether an index begins with these columns, in whatever order."""
    wanted = set(columns)
    indexes: list[Sequence[str | None]] = [
        inspector.get_pk_constraint(table, schema=schema).get("constrained_columns") or []
    ]
    indexes += [unique["column_names"] for unique in inspector.get_unique_constraints(table, schema=schema)]
    indexes += [
        index["column_names"]
        for index in inspector.get_indexes(table, schema=schema, **dialect_of(inspector).index_options)
        if not any(key.endswith("_where") for key in index.get("dialect_options") or {})
    ]
    return any(set(index[: len(wanted)]) == wanted for index in indexes)
