"""The definitions of the product's own tables, which ``session-policy init`` creates.

They are a session table for applications that have none yet, and tables for statistics, history, stored settings, alert
memory and shared runs, beside any session table. A change here needs a revision in ``migrations/versions``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from policy.mapping import SessionTable
from policy.presets import DatabasePreset
from stores.sql.schema.version import VERSION_TABLE, read_version, record_current_version

_ID = sa.String(128)
USER_LENGTH = 255
_USER = sa.String(USER_LENGTH)
_MYSQL_NAMES = ("mysql", "mariadb")


class _Time(sa.TypeDecorator[datetime]):
    """A point in time. MySQL would round to whole seconds, half of them into the future."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        if dialect.name not in _MYSQL_NAMES:
            return super().load_dialect_impl(dialect)
        from sqlalchemy.dialects import mysql  # noqa: PLC0415 - only a run on MySQL needs it

        return dialect.type_descriptor(mysql.DATETIME(fsp=6))


_TIME = _Time()
# Two ids or users that differ in upper and lower case only are two. Said when a table is created: said here, each run
# would import the dialect, whatever its database.
_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}

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
    sa.Column("created", sa.BigInteger, comment="Begun since the run before; NULL: not known"),
    sa.Column("expired", sa.BigInteger, nullable=False),
    sa.Column("over_limit", sa.BigInteger, nullable=False),
    sa.Column("evicted", sa.BigInteger, nullable=False),
    sa.Column("duplicate", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("abnormal", sa.BigInteger, nullable=False, server_default="0"),
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
    sa.CheckConstraint("scope IN ('Global', 'Tenant', 'Role', 'User')", name="session_settings_scope_check"),
    comment="Timeouts and limits that narrow every policy on this database: for everybody, or for the tenant, role or "
    "user that subject names. NULL leaves the policy's.",
)

usage = sa.Table(
    "session_usage",
    metadata,
    sa.Column("policy", sa.String(320), primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("hour", sa.Integer, primary_key=True),
    sa.Column("client", sa.String(32), primary_key=True),
    sa.Column("active", sa.BigInteger, nullable=False),
    sa.Column("begun", sa.BigInteger, nullable=False),
    sa.Column("used", sa.BigInteger, nullable=False),
    sa.Index("session_usage_day_idx", "day"),
    comment="Live sessions by hour (UTC) and kind of client, as the last run within that hour found them: all of them, "
    "those begun in that hour, and those last used in it.",
)

alerts = sa.Table(
    "session_alerts",
    metadata,
    sa.Column("policy", sa.String(320), primary_key=True),
    sa.Column("updated_at", _TIME, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    comment="Which problems each policy's alerts have told of, as JSON.",
)

work = sa.Table(
    "session_work",
    metadata,
    sa.Column("run_id", sa.String(64), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, comment="0: the run itself"),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("content", sa.Text, comment="As JSON: what the parts have in common, or which part of the table this is"),
    sa.Column("leader", sa.BigInteger, comment="Of number 0: the database's number of the leader's connection"),
    sa.Column("claimed_by", sa.String(64), comment="The worker that is at it, or was last"),
    sa.Column("touched_at", _TIME, nullable=False, comment="When a worker last wrote here, by the database's clock"),
    sa.Column("deleted", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("measured", sa.BigInteger, nullable=False, server_default="0", comment="Deleted, of known duration"),
    sa.Column("measured_seconds", sa.Float(53), nullable=False, server_default="0", comment="How long those lasted"),
    sa.Column("failed", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("kept", sa.BigInteger, nullable=False, server_default="0", comment="Seen in use by Redis"),
    sa.Column("redis_deleted", sa.BigInteger, nullable=False, server_default="0"),
    comment="Parts of the session table that the workers of a run share; of no use once it has ended.",
)


def session_table(table: SessionTable) -> sa.Table:
    """The default session table under the policy's name for it."""
    columns = DatabasePreset.DEFAULT.table.columns
    assert columns.user_id and columns.created_at and columns.last_accessed_at and columns.expires_at
    assert columns.client and columns.address and columns.revoked
    return sa.Table(
        table.name,
        sa.MetaData(),
        sa.Column(columns.id.name, _ID, primary_key=True),
        sa.Column(columns.user_id.name, _USER, index=True),
        sa.Column(columns.created_at.name, _TIME, nullable=False, index=True),
        sa.Column(columns.last_accessed_at.name, _TIME, nullable=False, index=True),
        sa.Column(columns.expires_at.name, _TIME, index=True, comment="NULL: never"),
        sa.Column(columns.client.name, sa.Text, comment="User agent or device that the session began on"),
        sa.Column(columns.address.name, sa.String(64), comment="IP address that the session began from"),
        sa.Column(columns.revoked.name, _TIME, comment="NULL: not revoked"),
        schema=table.schema,
    )


def create_tables(connection: sa.Connection, table: SessionTable) -> list[str]:
    """Creates those of the product's tables that do not exist. Returns the names of the created ones.

    Where all are new, their version is recorded. The session table is created only if it has the default columns: a
    table of an application's own is that application's business.
    """
    inspector = sa.inspect(connection)
    wanted = list(metadata.sorted_tables)
    if table.columns == DatabasePreset.DEFAULT.table.columns:
        wanted.insert(0, session_table(table))
    missing = [t for t in wanted if not inspector.has_table(t.name, schema=t.schema)]
    for each in missing:
        if connection.dialect.name in _MYSQL_NAMES:
            each.dialect_kwargs.update(_MYSQL)
        each.create(connection)
    created = [each.fullname for each in missing]
    if set(metadata.tables) <= set(created) and read_version(connection) is None:
        created += [VERSION_TABLE] if record_current_version(connection) else []
    return created
