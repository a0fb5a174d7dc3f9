"""The tables of release 0.1.0, and what its earlier builds made brought up to them.

Release 0.1.0 recorded no version. Its first builds had no columns ``created``, ``duplicate`` and ``abnormal`` in
session_statistics, had ``dry_run`` there, and took settings for everybody only.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from stores.model.errors import ConfigurationError

revision = "0001"
down_revision = None

# The columns that each table has had in every build.
_ALWAYS = {
    "session_statistics": "run_id policy started_at completed_at outcome active active_users expired over_limit evicted"
    " deleted failed remaining",
    "session_history": "user_id day cause sessions total_seconds",
    "session_settings": "scope subject idle_timeout_seconds absolute_timeout_seconds max_sessions",
    "session_usage": "policy day hour client active begun used",
    "session_alerts": "policy updated_at state",
    "session_work": "run_id number state content leader claimed_by touched_at deleted measured measured_seconds failed"
    " kept redis_deleted",
}
_SCOPE_CHECK = "session_settings_scope_check"


def upgrade() -> None:
    """Adds the missing columns, removes ``dry_run`` with the rows of dry runs, and lets settings have every scope.

    Raises:
        ConfigurationError: a table of that name is not the product's.
    """
    inspector = sa.inspect(op.get_bind())
    columns = {
        table: {column["name"] for column in inspector.get_columns(table)}
        for table in _ALWAYS
        if inspector.has_table(table)
    }
    for table, found in columns.items():
        _require_ours(table, found)
    if "session_statistics" in columns:
        _upgrade_statistics(columns["session_statistics"])
    if "session_settings" in columns:
        _upgrade_settings(inspector)


def _require_ours(table: str, found: set[str]) -> None:
    missing = [name for name in _ALWAYS[table].split() if name not in found]
    if missing:
        raise ConfigurationError(
            f"the database has a table {table} that session-policy did not make (it has no column "
            f"{', '.join(missing)}); nothing was changed. Rename it, or keep it in another schema"
        )


def _upgrade_statistics(found: set[str]) -> None:
    added = [
        sa.Column("created", sa.BigInteger, comment="Begun since the run before; NULL: not known"),
        sa.Column("duplicate", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("abnormal", sa.BigInteger, nullable=False, server_default="0"),
    ]
    for column in added:
        if column.name not in found:
            op.add_column("session_statistics", column)
    if "dry_run" in found:
        statistics = sa.table("session_statistics", sa.column("dry_run", sa.Boolean))
        op.execute(statistics.delete().where(statistics.c.dry_run.is_(sa.true())))
        op.drop_column("session_statistics", "dry_run")


def _upgrade_settings(inspector: sa.Inspector) -> None:
    checks = {check["name"]: check["sqltext"] for check in inspector.get_check_constraints("session_settings")}
    if "User" in checks.get(_SCOPE_CHECK, "User"):
        return
    with op.batch_alter_table("session_settings") as settings:  # SQLite can only copy the table
        settings.drop_constraint(_SCOPE_CHECK, type_="check")
        settings.create_check_constraint(_SCOPE_CHECK, "scope IN ('Global', 'Tenant', 'Role', 'User')")
