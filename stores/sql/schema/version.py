"""The version of the product's own tables, as the database records it.

The version table is Alembic's, under a name of its own. A run reads it with plain SQL: Alembic is imported by
``session-policy init`` only, since an import costs each run its CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import ReflectedColumn

CURRENT_VERSION = "0001"
"""What this release needs: the newest revision in ``migrations/versions``. Versions are compared as text."""

VERSION_TABLE = "session_policy_version"
version_table = sa.Table(
    VERSION_TABLE,
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)


def read_version(connection: sa.Connection) -> str | None:
    """The recorded version; None where none is.

    Raises:
        sqlalchemy.exc.DBAPIError: it cannot be read. The transaction goes on: the failed statement is undone alone.
    """
    with connection.begin_nested():
        if not sa.inspect(connection).has_table(VERSION_TABLE):
            return None
        version: str | None = connection.scalar(sa.select(version_table.c.version_num))
        return version


def record_current_version(connection: sa.Connection) -> bool:
    """Records that the tables are of this release. Returns whether it created the version table."""
    creates = not sa.inspect(connection).has_table(VERSION_TABLE)
    if creates:
        version_table.create(connection)
    connection.execute(version_table.insert().values(version_num=CURRENT_VERSION))
    return creates


def version_problem(found: str) -> tuple[str, str] | None:
    """Why tables of another version cannot be used, and the remedy; None for the version that this release needs."""
    if found == CURRENT_VERSION:
        return None
    if found < CURRENT_VERSION:
        return (
            f"the product's tables have version {found}, this release needs {CURRENT_VERSION}",
            "run `session-policy init`",
        )
    return (
        f"the product's tables were made by a newer release (version {found}; this release needs {CURRENT_VERSION})",
        "update the job image",
    )


def differences(inspector: sa.Inspector, tables: Iterable[sa.Table]) -> Iterator[str]:
    """What keeps a run from writing to those tables that exist: columns that are missing, or that it would not fill."""
    for table in tables:
        if not inspector.has_table(table.name):
            continue
        found = {column["name"]: column for column in inspector.get_columns(table.name)}
        if missing := [column.name for column in table.columns if column.name not in found]:
            yield f"{table.name} lacks {', '.join(missing)}"
        unknown = [column for name, column in found.items() if name not in table.columns]
        if required := [column["name"] for column in unknown if not _may_be_left_out(column)]:
            yield f"{table.name} requires {', '.join(required)}"


def _may_be_left_out(column: ReflectedColumn) -> bool:
    """Whether an INSERT need not name it."""
    filled = column.get("default") is not None or column.get("autoincrement") is True
    return column["nullable"] or filled or "computed" in column or "identity" in column
