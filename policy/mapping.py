"""What sessions are made of: the columns of a table by meaning, the keys and fields in Redis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from policy.model import Model, Rule


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
    """Name of the column, exactly as in the database; it is quoted for you."""


class TimeColumn(Column):
    """A column that holds a point in time."""

    encoding: TimeEncoding = TimeEncoding.TIMESTAMP
    """How the time is stored: Timestamp (with time zone, or the database's only kind), NaiveTimestamp (without zone;
    see timeZone), EpochSeconds, EpochMilliseconds or JulianDay."""
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"
    """IANA name of the zone that a NaiveTimestamp is written in, or Server for the database's own."""


class UserColumn(Column):
    """The column that holds the user id."""

    path: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=10)] = []
    """Path of the user id in a JSON column, e.g. [passport, user, id]."""


class FlagColumn(Column):
    """A column in which the application flags sessions: true, a number other than 0, or any time or text."""

    inverted: bool = False
    """Whether the flag means the opposite, as in a column named active."""


class Columns(Model):
    """The columns by their meaning. A timeout or rule whose column is not mapped does not apply."""

    id: Column
    """The session id: unique, and part of the Redis key."""
    user_id: UserColumn | None = None
    """The user id. Needed for maxConcurrentSessions and for Redis user indexes."""
    created_at: TimeColumn | None = None
    """When the session was created. Needed for absoluteTimeoutSeconds and for EvictOldest and EvictNewest."""
    last_accessed_at: TimeColumn | None = None
    """When the session was last used. Needed for sessionTimeoutSeconds and for EvictLeastRecentlyUsed."""
    expires_at: TimeColumn | None = None
    """When the session expires by the application's own rule; NULL means never. Applies besides the timeouts."""
    client: Column | None = None
    """The client (device, user agent) that created the session. Needed for duplicates."""
    address: Column | None = None
    """IP address that the session was created from."""
    revoked: FlagColumn | None = None
    """Whether the application has flagged or revoked the session."""
    tenant: Column | None = None
    """The tenant that the session belongs to. Needed for settings per tenant."""
    role: Column | None = None
    """The user's role. Needed for settings per role."""

    rules = (
        Rule(
            cel="has(self.createdAt) || has(self.lastAccessedAt) || has(self.expiresAt)",
            message="columns: map at least one of createdAt, lastAccessedAt and expiresAt, or nothing can ever expire",
            holds=lambda c: c.created_at is not None or c.last_accessed_at is not None or c.expires_at is not None,
        ),
    )


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
    """Templates of the Redis keys. A key that matches none of them is never touched."""

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
    """Name of the field. Dots lead into JSON objects, as in cookie.expires."""
    encoding: TimeEncoding = TimeEncoding.EPOCH_SECONDS
    """How the time is stored. Timestamp is ISO 8601 with zone; NaiveTimestamp is ISO 8601 in UTC."""


class RedisFields(Model):
    """Fields of a session's JSON object or hash. A field that a session does not have is unknown, not an error."""

    user_id: Annotated[str, Field(min_length=1, max_length=128)] = "userId"
    """Name of the field that holds the user id. Dots lead into JSON objects, as in passport.user."""
    created_at: TimeField = TimeField(name="createdAt")
    """When the session began."""
    last_accessed_at: TimeField = TimeField(name="lastAccessedAt")
    """When the session was last used. An access newer than the database's keeps the session alive."""
    expires_at: TimeField | None = None
    """When the session expires by the application's own rule. Used only without a database, and only for keys without a
    TTL: a TTL takes precedence."""


@dataclass(frozen=True, slots=True)
class RedisLayout:
    """How an application keeps sessions in Redis.

    Attributes:
        keys: how keys are named.
        fields: how a session's content is read.
    """

    keys: RedisKeys
    fields: RedisFields
