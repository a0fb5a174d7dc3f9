"""The product's own tables: what ``session-policy init`` creates.

A table of sessions for applications that have none yet, and the tables that statistics, history and settings are kept
in, beside any session table.
"""

from __future__ import annotations

import sqlalchemy as sa

from policy.presets import PRESETS, SessionTable
from policy.stores import Preset

_ID = sa.String(128)
USER_LENGTH = 255
_USER = sa.String(USER_LENGTH)
_TIME = sa.DateTime(timezone=True)

metadata = sa.MetaData()

statistics = sa.Table(
    "session_statistics",
    metadata,
    sa.Column("run_id", sa.String(64), primary_key=True),
    sa.Column("policy", sa.String(320), nullable=False),
    sa.Column("started_at", _TIME, nullable=False, index=True),
    sa.Column("completed_at", _TIME, nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("active", sa.BigInteger, nullable=False),
    sa.Column("active_users", sa.BigInteger, nullable=False),
    sa.Column("expired", sa.BigInteger, nullable=False),
    sa.Column("over_limit", sa.BigInteger, nullable=False),
    sa.Column("evicted", sa.BigInteger, nullable=False),
    sa.Column("deleted", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("remaining", sa.BigInteger, nullable=False),
    comment="One row per run that was no dry run.",
)

history = sa.Table(
    "session_history",
    metadata,
    sa.Column("user_id", _USER, primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("cause", sa.String(16), primary_key=True),
    sa.Column("sessions", sa.BigInteger, nullable=False),
    sa.Column("total_seconds", sa.BigInteger, nullable=False),
    sa.Index("session_history_day_idx", "day"),
    comment="Sessions that were ended, by user, day (UTC) and cause.",
)

settings = sa.Table(
    "session_settings",
    metadata,
    sa.Column("scope", sa.String(16), primary_key=True),
    sa.Column("subject", _USER, primary_key=True, server_default=""),
    sa.Column("idle_timeout_seconds", sa.BigInteger),
    sa.Column("absolute_timeout_seconds", sa.BigInteger),
    sa.Column("max_sessions", sa.BigInteger),
    sa.CheckConstraint("scope IN ('Global')", name="session_settings_scope_check"),
    comment="Timeouts and limits that narrow every policy on this database.",
)


def session_table(table: SessionTable) -> sa.Table:
    """The default session table under the policy's name for it."""
    columns = PRESETS[Preset.DEFAULT].columns
    assert columns.user_id and columns.created_at and columns.last_accessed_at and columns.expires_at
    return sa.Table(
        table.name,
        sa.MetaData(),
        sa.Column(columns.id.name, _ID, primary_key=True),
        sa.Column(columns.user_id.name, _USER, index=True),
        sa.Column(columns.created_at.name, _TIME, nullable=False, index=True),
        sa.Column(columns.last_accessed_at.name, _TIME, nullable=False, index=True),
        sa.Column(columns.expires_at.name, _TIME, index=True, comment="NULL: never"),
        schema=table.schema,
    )


def create_tables(connection: sa.Connection, table: SessionTable) -> list[str]:
    """Creates what is missing of the product's tables, and nothing else. Returns the names of the created ones.

    The session table is created only if it has the default columns: a table of an application's own is that
    application's business.
    """
    inspector = sa.inspect(connection)
    wanted = list(metadata.sorted_tables)
    if table.columns == PRESETS[Preset.DEFAULT].columns:
        wanted.insert(0, session_table(table))
    missing = [t for t in wanted if not inspector.has_table(t.name, schema=t.schema)]
    for each in missing:
        each.create(connection)
    return [each.fullname for each in missing]
