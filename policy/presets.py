"""Known applications' session tables, and the table a policy ends up with."""

from __future__ import annotations

from dataclasses import dataclass

from policy.stores import Column, Columns, DatabaseStore, Preset, TimeColumn


@dataclass(frozen=True, slots=True)
class SessionTable:
    """A session table with nothing left to look up.

    Attributes:
        schema: database schema; None for the connection's search path.
        name: the table.
        columns: which column means what.
    """

    schema: str | None
    name: str
    columns: Columns


PRESETS: dict[Preset, SessionTable] = {
    # The product's own schema, as `session-policy init` creates it.
    Preset.DEFAULT: SessionTable(
        schema=None,
        name="sessions",
        columns=Columns(
            id=Column(name="session_id"),
            user_id=Column(name="user_id"),
            created_at=TimeColumn(name="created_at"),
            last_accessed_at=TimeColumn(name="last_accessed_at"),
            expires_at=TimeColumn(name="expires_at"),
        ),
    ),
}


def resolve_table(store: DatabaseStore) -> SessionTable:
    """The table of a policy: what its own mapping leaves out comes from the preset."""
    preset = PRESETS[store.preset]
    if store.table is None:
        return preset
    return SessionTable(
        schema=store.table.schema_name or preset.schema,
        name=store.table.name or preset.name,
        columns=store.table.columns or preset.columns,
    )
