"""Known applications' session tables, and the table a policy ends up with."""

from __future__ import annotations

from dataclasses import dataclass

from policy.stores import (
    Column,
    Columns,
    DatabaseStore,
    FlagColumn,
    Preset,
    TimeColumn,
    TimeEncoding,
    UserColumn,
)

_DAY = 24 * 3600


@dataclass(frozen=True, slots=True)
class SessionTable:
    """A session table with nothing left to look up.

    Attributes:
        schema: database schema; None for the connection's search path.
        name: the table.
        columns: which column means what.
        idle_seconds: the application's own idle timeout, where the table alone does not tell when a session ends; it
            stands in for the policy's default, never for what a policy says.
        case_sensitive: whether names are exactly these; otherwise the database's own spelling counts, as for an
          application that never quotes its names.
    """

    schema: str | None
    name: str
    columns: Columns
    idle_seconds: int | None = None
    case_sensitive: bool = True


PRESETS: dict[Preset, SessionTable] = {
    # The product's own schema, as `session-policy init` creates it.
    Preset.DEFAULT: SessionTable(
        schema=None,
        name="sessions",
        columns=Columns(
            id=Column(name="session_id"),
            user_id=UserColumn(name="user_id"),
            created_at=TimeColumn(name="created_at"),
            last_accessed_at=TimeColumn(name="last_accessed_at"),
            expires_at=TimeColumn(name="expires_at"),
            client=Column(name="client"),
            address=Column(name="address"),
            revoked=FlagColumn(name="revoked_at"),
        ),
    ),
    # django/contrib/sessions/base_session.py. On MySQL and SQLite times have no zone and depend on USE_TZ: with False,
    # map the table with NaiveTimestamp and the TIME_ZONE of the settings.
    Preset.DJANGO: SessionTable(
        schema=None,
        name="django_session",
        columns=Columns(id=Column(name="session_key"), expires_at=TimeColumn(name="expire_date")),
    ),
    # connect-pg-simple: table.sql. The column has no zone and holds the writing connection's local time.
    Preset.CONNECT_PG_SIMPLE: SessionTable(
        schema=None,
        name="session",
        columns=Columns(
            id=Column(name="sid"),
            expires_at=TimeColumn(name="expire", encoding=TimeEncoding.NAIVE_TIMESTAMP, time_zone="Server"),
        ),
    ),
    # express-mysql-session: schema.sql.
    Preset.EXPRESS_MYSQL: SessionTable(
        schema=None,
        name="sessions",
        columns=Columns(
            id=Column(name="session_id"),
            expires_at=TimeColumn(name="expires", encoding=TimeEncoding.EPOCH_SECONDS),
        ),
    ),
    # laravel/framework: database.stub; config/session.php lets a session idle for 120 minutes.
    Preset.LARAVEL: SessionTable(
        schema=None,
        name="sessions",
        columns=Columns(
            id=Column(name="id"),
            user_id=UserColumn(name="user_id"),
            last_accessed_at=TimeColumn(name="last_activity", encoding=TimeEncoding.EPOCH_SECONDS),
            client=Column(name="user_agent"),
            address=Column(name="ip_address"),
        ),
        idle_seconds=120 * 60,
    ),
    # activerecord-session_store: templates/migration.rb; its own trim task keeps 30 days.
    Preset.RAILS_ACTIVE_RECORD: SessionTable(
        schema=None,
        name="sessions",
        columns=Columns(
            id=Column(name="session_id"),
            created_at=TimeColumn(name="created_at", encoding=TimeEncoding.NAIVE_TIMESTAMP),
            last_accessed_at=TimeColumn(name="updated_at", encoding=TimeEncoding.NAIVE_TIMESTAMP),
        ),
        idle_seconds=30 * _DAY,
    ),
    # spring-session-jdbc: schema-*.sql. Long.MAX_VALUE means never and is larger than any bound.
    Preset.SPRING_JDBC: SessionTable(
        schema=None,
        name="SPRING_SESSION",
        columns=Columns(
            id=Column(name="PRIMARY_ID"),
            user_id=UserColumn(name="PRINCIPAL_NAME"),
            created_at=TimeColumn(name="CREATION_TIME", encoding=TimeEncoding.EPOCH_MILLISECONDS),
            expires_at=TimeColumn(name="EXPIRY_TIME", encoding=TimeEncoding.EPOCH_MILLISECONDS),
        ),
        case_sensitive=False,
    ),
    # authjs.dev: adapter pg. Prisma's and Drizzle's tables hold naive UTC: map them with NaiveTimestamp.
    Preset.AUTH_JS: SessionTable(
        schema=None,
        name="sessions",
        columns=Columns(id=Column(name="id"), user_id=UserColumn(name="userId"), expires_at=TimeColumn(name="expires")),
    ),
    # ory/kratos: migrations/sql.
    Preset.KRATOS: SessionTable(
        schema=None,
        name="sessions",
        columns=Columns(
            id=Column(name="id"),
            user_id=UserColumn(name="identity_id"),
            created_at=TimeColumn(name="issued_at", encoding=TimeEncoding.NAIVE_TIMESTAMP),
            expires_at=TimeColumn(name="expires_at", encoding=TimeEncoding.NAIVE_TIMESTAMP),
            revoked=FlagColumn(name="active", inverted=True),
            tenant=Column(name="nid"),
        ),
    ),
    # supabase/auth: migrations. refreshed_at moves about once an hour, so it says little about use.
    Preset.SUPABASE: SessionTable(
        schema="auth",
        name="sessions",
        columns=Columns(
            id=Column(name="id"),
            user_id=UserColumn(name="user_id"),
            created_at=TimeColumn(name="created_at"),
            expires_at=TimeColumn(name="not_after"),
            client=Column(name="user_agent"),
            address=Column(name="ip"),
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
        idle_seconds=None if store.table.columns else preset.idle_seconds,
        case_sensitive=preset.case_sensitive or store.table.columns is not None,
    )
