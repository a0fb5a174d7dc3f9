"""The part of the spec that describes the session stores: the database table and the Redis keys."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from policy.mapping import Columns, RedisFields, RedisKeys, SessionTable
from policy.model import Model, Rule
from policy.presets import DatabasePreset, RedisPreset


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


class DatabaseStore(Model):
    """Sessions in a SQL database."""

    url_from: ValueSource
    """SQLAlchemy URL of the database, e.g. postgresql+psycopg://user:password@host/database."""
    preset: DatabasePreset = DatabasePreset.DEFAULT
    """A known application's table and columns."""
    table: Table | None = None
    """Table and columns, where they differ from the preset's."""

    @property
    def session_table(self) -> SessionTable:
        """The table that applies: what the policy's own mapping leaves out comes from the preset."""
        known, own = self.preset.table, self.table
        if own is None:
            return known
        return SessionTable(
            schema=own.schema_name or known.schema,
            name=own.name or known.name,
            columns=own.columns or known.columns,
            idle_seconds=None if own.columns else known.idle_seconds,
            case_sensitive=known.case_sensitive or own.columns is not None,
        )


class RedisMode(StrEnum):
    """Deployment mode of Redis."""

    STANDALONE = "Standalone"
    SENTINEL = "Sentinel"
    CLUSTER = "Cluster"


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
        return self.keys_ or self.preset.layout.keys

    @property
    def fields(self) -> RedisFields:
        """The fields that apply: the policy's own, else the preset's."""
        return self.fields_ or self.preset.layout.fields


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
