"""Putting the made-up sessions into the stores, fast."""

from __future__ import annotations

import json
from dataclasses import fields
from operator import attrgetter
from typing import Any

import redis
import sqlalchemy as sa

from job.demo.seed import Population, RedisSession
from job.demo.snapshot import Row
from policy.presets import DatabasePreset
from policy.stores import RedisStore
from stores.model.batches import batches
from stores.redis.keys import KeyNames
from stores.rules.details import Access
from stores.sql.schema.tables import create_tables, metadata, session_table

_PIPELINE = 2000
# Nobody has asked for an orphan in a long time. A run that knows that need not wait to see whether it is one.
_ORPHAN_IDLE_SECONDS = 3600
_VALUES = attrgetter(*(field.name for field in fields(Row)))


def fill(engine: sa.Engine, client: redis.Redis, layout: RedisStore, population: Population) -> None:
    """Fills both stores, and empties them before.

    Args:
        engine: a PostgreSQL database.
        client: Redis.
        layout: how keys are named and sessions are written.
        population: what to put in.
    """
    client.flushdb()
    _fill_redis(client, layout, population)
    with engine.begin() as connection:
        _fill_database(connection, population)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


def _fill_database(connection: sa.Connection, population: Population) -> None:
    table = session_table(DatabasePreset.DEFAULT.table)
    create_tables(connection, DatabasePreset.DEFAULT.table)
    for each in (table, *metadata.sorted_tables):
        connection.execute(sa.delete(each))
    columns = ", ".join(column.name for column in table.columns)
    driver: Any = connection.connection.driver_connection
    with driver.cursor().copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:
        for row in population.rows:
            copy.write_row(_VALUES(row))


def _fill_redis(client: redis.Redis, layout: RedisStore, population: Population) -> None:
    names = KeyNames.parse(layout.keys)
    with_row = {row.session_id for row in population.rows}
    for group in batches(population.keys, _PIPELINE):
        with client.pipeline(transaction=False) as pipeline:
            for session in group:
                _write(pipeline, names, layout, session)
            pipeline.execute()
    for entries in batches(population.index, _PIPELINE):
        with client.pipeline(transaction=False) as pipeline:
            for user, session_id in entries:
                if key := names.user_index_key(user):
                    pipeline.sadd(key, session_id)
            pipeline.execute()
    _leave_idle(client, [names.session.key(s.session_id) for s in population.keys if s.session_id not in with_row])


def _write(pipeline: Any, names: KeyNames, layout: RedisStore, session: RedisSession) -> None:
    fields = layout.fields
    content: dict[str, str | int] = {
        fields.user_id: session.user_id,
        fields.created_at.name: int(session.created_at.timestamp()),
        fields.last_accessed_at.name: int(session.last_accessed_at.timestamp()),
        "client": session.client,
        "ip": session.address,
    }
    key = names.session.key(session.session_id)
    if session.as_hash:
        pipeline.hset(key, mapping=content)
        if session.ttl_seconds is not None:
            pipeline.expire(key, session.ttl_seconds)
    else:
        pipeline.set(key, json.dumps(content), ex=session.ttl_seconds)
    log = names.access_log_key(session.session_id)
    if session.log and log is not None:
        pipeline.rpush(log, *map(_entry, session.log))


def _entry(access: Access) -> str:
    return json.dumps(
        {
            "time": int(access.at.timestamp()) if access.at else None,
            "ip": access.address,
            "client": access.client,
            "location": {"lat": access.place.latitude, "lon": access.place.longitude} if access.place else None,
        }
    )


def _leave_idle(client: redis.Redis, keys: list[bytes]) -> None:
    """Makes Redis believe that these keys have not been used for long, which only RESTORE can."""
    for group in batches(keys, _PIPELINE):
        with client.pipeline(transaction=False) as pipeline:
            for key in group:
                pipeline.dump(key)
                pipeline.pttl(key)
            replies = pipeline.execute()
        with client.pipeline(transaction=False) as pipeline:
            for key, dump, ttl in zip(group, replies[::2], replies[1::2], strict=True):
                pipeline.restore(key, max(0, ttl), dump, replace=True, idletime=_ORPHAN_IDLE_SECONDS)
            pipeline.execute()
