"""Known applications' session tables: one entry for each."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from policy.mapping import (
    Column,
    Columns,
    FlagColumn,
    SessionTable,
    TimeColumn,
    TimeEncoding,
    UserColumn,
)

_DAY = 24 * 3600


class DatabasePreset(StrEnum):
    """A known application's session table.

    Attributes:
        table: where the sessions are, and which column means what.
    """

    # The product's own schema, as `session-policy init` creates it.
    DEFAULT = (
        "Default",
        SessionTable(
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
    )
    # django/contrib/sessions/base_session.py. On MySQL and SQLite times have no zone and depend on USE_TZ: with False,
    # map the table with NaiveTimestamp and the TIME_ZONE of the settings.
    DJANGO = (
        "Django",
        SessionTable(
            schema=None,
            name="django_session",
            columns=Columns(id=Column(name="session_key"), expires_at=TimeColumn(name="expire_date")),
        ),
    )
    # connect-pg-simple: table.sql. The column has no zone and holds the writing connection's local time.
    CONNECT_PG_SIMPLE = (
        "ConnectPgSimple",
        SessionTable(
            schema=None,
            name="session",
            columns=Columns(
                id=Column(name="sid"),
                expires_at=TimeColumn(name="expire", encoding=TimeEncoding.NAIVE_TIMESTAMP, time_zone="Server"),
            ),
        ),
    )
    # express-mysql-session: schema.sql.
    EXPRESS_MYSQL = (
        "ExpressMySQL",
        SessionTable(
            schema=None,
            name="sessions",
            columns=Columns(
                id=Column(name="session_id"),
                expires_at=TimeColumn(name="expires", encoding=TimeEncoding.EPOCH_SECONDS),
            ),
        ),
    )
    # laravel/framework: database.stub; config/session.php lets a session idle for 120 minutes.
    LARAVEL = (
        "Laravel",
        SessionTable(
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
    )
    # activerecord-session_store: templates/migration.rb; its own trim task keeps 30 days.
    RAILS_ACTIVE_RECORD = (
        "RailsActiveRecord",
        SessionTable(
            schema=None,
            name="sessions",
            columns=Columns(
                id=Column(name="session_id"),
                created_at=TimeColumn(name="created_at", encoding=TimeEncoding.NAIVE_TIMESTAMP),
                last_accessed_at=TimeColumn(name="updated_at", encoding=TimeEncoding.NAIVE_TIMESTAMP),
            ),
            idle_seconds=30 * _DAY,
        ),
    )
    # spring-session-jdbc: schema-*.sql. Long.MAX_VALUE means never and is larger than any bound.
    SPRING_JDBC = (
        "SpringJdbc",
        SessionTable(
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
    )
    # authjs.dev: adapter pg. Prisma's and Drizzle's tables hold naive UTC: map them with NaiveTimestamp.
    AUTH_JS = (
        "AuthJs",
        SessionTable(
            schema=None,
            name="sessions",
            columns=Columns(
                id=Column(name="id"), user_id=UserColumn(name="userId"), expires_at=TimeColumn(name="expires")
            ),
        ),
    )
    # ory/kratos: migrations/sql.
    KRATOS = (
        "Kratos",
        SessionTable(
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
    )
    # supabase/auth: migrations. refreshed_at moves about once an hour, so it says little about use.
    SUPABASE = (
        "Supabase",
        SessionTable(
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
    )

    table: SessionTable

    def __new__(cls, value: str, table: SessionTable) -> Self:
        """A member from its entry."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.table = table
        return member
