"""The part of the spec that describes the session stores: the database table and the Redis keys."""

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
    """Where a secret value is read from. Only the cleanup Pod reads it, never the controller."""

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


class Table(Model):
    """The session table; fields left out are taken from the preset."""

    schema_name: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(default=None, alias="schema")
    """Database schema of the table. Default: the connection's own search path."""
    name: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Name of the table, exactly as in the database; it is quoted for you."""
    columns: Columns | None = None
    """The columns by their meaning. Replaces all columns of the preset."""

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
    DJANGO = "Django"
    CONNECT_PG_SIMPLE = "ConnectPgSimple"
    EXPRESS_MYSQL = "ExpressMySQL"
    LARAVEL = "Laravel"
    RAILS_ACTIVE_RECORD = "RailsActiveRecord"
    SPRING_JDBC = "SpringJdbc"
    AUTH_JS = "AuthJs"
    KRATOS = "Kratos"
    SUPABASE = "Supabase"


class DatabaseStore(Model):
    """Sessions in a SQL database."""

    url_from: ValueSource
    """SQLAlchemy URL of the database, e.g. postgresql+psycopg://user:password@host/database."""
    preset: Preset = Preset.DEFAULT
    """A known application's table and columns."""
    table: Table | None = None
    """Table and columns, where they differ from the preset's."""


class RedisMode(StrEnum):
    """Deployment mode of Redis."""

    STANDALONE = "Standalone"
    SENTINEL = "Sentinel"
    CLUSTER = "Cluster"


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


class RedisPreset(StrEnum):
    """A known application's keys and session content."""

    DEFAULT = "Default"
    CONNECT_REDIS = "ConnectRedis"
    DJANGO_CACHE = "DjangoCache"
    DJANGO_CACHED_DB = "DjangoCachedDb"
    SPRING_INDEXED = "SpringIndexed"


class RedisStore(Model):
    """Sessions in Redis."""

    url_from: ValueSource
    """URL of Redis, e.g. rediss://:password@host:6379/0."""
    mode: RedisMode = RedisMode.STANDALONE
    """Deployment mode: Standalone, Sentinel (the URL names the sentinels, separated by commas; see sentinelMaster) or
    Cluster (the URL names one or several nodes)."""
    sentinel_master: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Name of the master that the sentinels watch."""
    preset: RedisPreset = RedisPreset.DEFAULT
    """A known application's keys and fields."""
    keys_: RedisKeys | None = Field(default=None, alias="keys")
    """Key templates. Replaces all keys of the preset."""
    fields_: RedisFields | None = Field(default=None, alias="fields")
    """Fields of a session's content. Replaces all fields of the preset."""

    rules = (
        Rule(
            cel="(self.mode == 'Sentinel') == has(self.sentinelMaster)",
            message="sentinelMaster: name the master with mode Sentinel, and only then",
            holds=lambda r: (r.mode is RedisMode.SENTINEL) == (r.sentinel_master is not None),
        ),
    )

    @property
    def keys(self) -> RedisKeys:
        """The keys that apply: the policy's own, else the preset's."""
        return self.keys_ or REDIS_PRESETS[self.preset][0]

    @property
    def fields(self) -> RedisFields:
        """The fields that apply: the policy's own, else the preset's."""
        return self.fields_ or REDIS_PRESETS[self.preset][1]


#: Keys and fields by application.
REDIS_PRESETS: dict[RedisPreset, tuple[RedisKeys, RedisFields]] = {
    RedisPreset.DEFAULT: (RedisKeys(), RedisFields()),
    # connect-redis: index.ts. Where it sets a TTL, that is the expiry; with disableTTL only the cookie has one.
    RedisPreset.CONNECT_REDIS: (
        RedisKeys(session="sess:{id}"),
        RedisFields(
            user_id="passport.user", expires_at=TimeField(name="cookie.expires", encoding=TimeEncoding.TIMESTAMP)
        ),
    ),
    # django/contrib/sessions/backends/cache.py, cached_db.py, with no KEY_PREFIX and VERSION 1. The content is pickled.
    RedisPreset.DJANGO_CACHE: (RedisKeys(session=":1:django.contrib.sessions.cache{id}"), RedisFields()),
    RedisPreset.DJANGO_CACHED_DB: (RedisKeys(session=":1:django.contrib.sessions.cached_db{id}"), RedisFields()),
    # spring-session-data-redis: RedisIndexedSessionRepository, namespace spring:session. The marker whose end tells the
    # application of a session's goes with its session, as an access log does.
    RedisPreset.SPRING_INDEXED: (
        RedisKeys(
            session="spring:session:sessions:{id}",
            user_index="spring:session:index:org.springframework.session.FindByIndexNameSessionRepository."
            "PRINCIPAL_NAME_INDEX_NAME:{user}",
            access_log="spring:session:sessions:expires:{id}",
        ),
        RedisFields(
            created_at=TimeField(name="creationTime", encoding=TimeEncoding.EPOCH_MILLISECONDS),
            last_accessed_at=TimeField(name="lastAccessedTime", encoding=TimeEncoding.EPOCH_MILLISECONDS),
        ),
    ),
}


class Stores(Model):
    """The stores that hold the sessions."""

    database: DatabaseStore | None = None
    """The SQL database. Where there is one, it is the source of truth for every session."""
    redis: RedisStore | None = None
    """The Redis that holds the same sessions or, without a database, is the only store."""

    rules = (
        Rule(
            cel="has(self.database) || has(self.redis)",
            message="stores: name a database, a redis, or both",
            holds=lambda s: s.database is not None or s.redis is not None,
        ),
    )
