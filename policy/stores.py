"""Where sessions are kept: the part of the spec that describes the database table and the Redis keys."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from policy.model import Model, Rule


class SecretKeyRef(Model):
    """A key of a Secret in the policy's own namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253)]
    """Key within the Secret."""


class ValueSource(Model):
    """Where a secret value is read from. The controller never reads it; only the cleanup Pod does."""

    secret_key_ref: SecretKeyRef
    """A key of a Secret in the policy's namespace."""


class TimeEncoding(StrEnum):
    """How a column or field stores a point in time."""

    TIMESTAMP = "Timestamp"
    NAIVE_TIMESTAMP = "NaiveTimestamp"
    EPOCH_SECONDS = "EpochSeconds"
    EPOCH_MILLISECONDS = "EpochMilliseconds"
    JULIAN_DAY = "JulianDay"


ColumnName = Annotated[str, Field(min_length=1, max_length=128)]


class Column(Model):
    """A column of the session table."""

    name: ColumnName
    """Name of the column, exactly as the database knows it; it is quoted for you."""


class TimeColumn(Column):
    """A column that holds a point in time."""

    encoding: TimeEncoding = TimeEncoding.TIMESTAMP
    """How the time is stored: Timestamp (with time zone, or the database's only kind), NaiveTimestamp (without zone;
    see timeZone), EpochSeconds, EpochMilliseconds or JulianDay."""
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"
    """IANA name of the zone that a NaiveTimestamp is written in."""


class Columns(Model):
    """Which column means what. Only what is mapped can be judged: a timeout whose column is missing does not apply."""

    id: Column
    """The session id: unique, and what Redis keys are made of."""
    user_id: Column | None = None
    """Whose session it is. Needed for the limit per user and for Redis user indexes."""
    created_at: TimeColumn | None = None
    """When the session began. Needed for absoluteTimeoutSeconds and for EvictOldest and EvictNewest."""
    last_accessed_at: TimeColumn | None = None
    """When the session was last used. Needed for sessionTimeoutSeconds and for EvictLeastRecentlyUsed."""
    expires_at: TimeColumn | None = None
    """When the application itself lets the session end; NULL means never. Applies besides the policy's timeouts."""

    rules = (
        Rule(
            cel="has(self.createdAt) || has(self.lastAccessedAt) || has(self.expiresAt)",
            message="columns: map at least one of createdAt, lastAccessedAt and expiresAt, or nothing can ever expire",
            holds=lambda c: c.created_at is not None or c.last_accessed_at is not None or c.expires_at is not None,
        ),
    )


class Table(Model):
    """The session table; what is left out comes from the preset."""

    schema_name: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(default=None, alias="schema")
    """Database schema of the table. Default: the connection's own search path."""
    name: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Name of the table, exactly as the database knows it; it is quoted for you."""
    columns: Columns | None = None
    """The columns by meaning. Replaces the preset's columns as a whole."""

    rules = (
        Rule(
            cel="!has(self.columns) || has(self.name)",
            message="table.name: name the table whose columns are mapped",
            holds=lambda t: t.columns is None or t.name is not None,
        ),
    )


class Preset(StrEnum):
    """A known application's session table."""

    DEFAULT = "Default"


class DatabaseStore(Model):
    """Sessions in a SQL database."""

    url_from: ValueSource
    """Where the SQLAlchemy URL is, e.g. postgresql+psycopg://user:password@host/database."""
    preset: Preset = Preset.DEFAULT
    """A known application's table and columns."""
    table: Table | None = None
    """Another table or other columns than the preset's."""


class RedisMode(StrEnum):
    """How the Redis servers are arranged."""

    STANDALONE = "Standalone"


def _has_one(placeholder: str) -> Callable[[str], bool]:
    return lambda template: template.count(placeholder) == 1


def _template_rule(field: str, attribute: str, placeholder: str) -> Rule:
    one = _has_one(placeholder)

    def holds(keys: RedisKeys) -> bool:
        template = getattr(keys, attribute)
        return template is None or one(template)

    return Rule(
        cel=f"!has(self.{field}) || self.{field}.split('{placeholder}').size() == 2",
        message=f"keys.{field}: the template must contain {placeholder} exactly once",
        holds=holds,
    )


KeyTemplate = Annotated[str, Field(min_length=4, max_length=256)]


class RedisKeys(Model):
    """Templates of the keys. A key that matches none of them is never touched."""

    session: KeyTemplate = "sess:{id}"
    """Key of a session: a string holding JSON, or a hash."""
    user_index: KeyTemplate | None = None
    """Key of the set of a user's session ids, e.g. user_sess:{user}."""
    access_log: KeyTemplate | None = None
    """Key of a session's access log list, e.g. access_log:{id}."""

    rules = (
        _template_rule("session", "session", "{id}"),
        _template_rule("userIndex", "user_index", "{user}"),
        _template_rule("accessLog", "access_log", "{id}"),
    )


class TimeField(Model):
    """A field of the session's JSON or hash that holds a point in time."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    """Name of the field."""
    encoding: TimeEncoding = TimeEncoding.EPOCH_SECONDS
    """How the time is stored. Timestamp is ISO 8601 with zone; NaiveTimestamp is ISO 8601 in UTC."""


class RedisFields(Model):
    """Fields of a session's JSON object or hash. A field that is missing from a session is simply not known of it."""

    user_id: Annotated[str, Field(min_length=1, max_length=128)] = "userId"
    """Name of the field with the user's id."""
    created_at: TimeField = TimeField(name="createdAt")
    """When the session began."""
    last_accessed_at: TimeField = TimeField(name="lastAccessedAt")
    """When the session was last used. An access newer than the database's keeps the session alive."""


class RedisStore(Model):
    """Sessions in Redis."""

    url_from: ValueSource
    """Where the Redis URL is, e.g. rediss://:password@host:6379/0."""
    mode: RedisMode = RedisMode.STANDALONE
    """How the servers are arranged."""
    keys: RedisKeys = RedisKeys()
    """How keys are named."""
    fields: RedisFields = RedisFields()
    """How a session's content is read."""


class Stores(Model):
    """The stores that hold the sessions."""

    database: DatabaseStore
    """The SQL database. What it says of a session decides."""
    redis: RedisStore | None = None
    """The Redis that holds the same sessions, if any."""
