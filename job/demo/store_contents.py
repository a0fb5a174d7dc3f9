"""Fills the demo's stores, and reads back what they hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import redis
import sqlalchemy as sa

from job.demo.sessions import Access, Key, Row, StoreContents
from policy.presets import DatabasePreset
from policy.stores import RedisStore
from stores.model.batches import batches
from stores.redis.keys import KeyNames
from stores.sql.schema.tables import create_tables, metadata, session_table

_PIPELINE, _SCAN_COUNT = 2000, 5000
_NO_TTL, _NO_KEY = -1, -2  # replies of PTTL
_TABLE = DatabasePreset.DEFAULT.table


def fill(engine: sa.Engine, client: redis.Redis, layout: RedisStore, contents: StoreContents) -> None:
    """Empties both stores and fills them.

    Args:
        engine: a PostgreSQL database.
        client: a Redis database; the client returns bytes.
        layout: how keys and their fields are named.
        contents: what to put in.
    """
    client.flushdb()
    _send(client, _redis_commands(layout, contents))
    with engine.begin() as connection:
        table = session_table(_TABLE)
        create_tables(connection, _TABLE)
        for each in (table, *metadata.sorted_tables):
            connection.execute(sa.delete(each))
        driver: Any = connection.connection.driver_connection
        columns = ", ".join(column.name for column in table.columns)
        with driver.cursor().copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:
            for row in contents.rows.values():
                copy.write_row(row)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


def read(engine: sa.Engine, client: redis.Redis, layout: RedisStore) -> StoreContents:
    """What both stores hold now; of session keys the TTL and the last access only."""
    taken_at = datetime.now(UTC)
    with engine.connect() as connection:
        rows = {row[0]: Row(*row) for row in connection.execute(sa.select(session_table(_TABLE)))}
    names = KeyNames.parse(layout.keys)
    logs: dict[str, bytes] = {}
    indexes: dict[str, bytes] = {}
    sessions: dict[str, bytes] = {}
    for key in client.scan_iter(count=_SCAN_COUNT):
        if (owner := names.access_log_session_id(key)) is not None:
            logs[owner] = key
        elif names.user_index and (owner := names.user_index.name(key)) is not None:
            indexes[owner] = key
        elif (owner := names.session_id(key)) is not None:
            sessions[owner] = key
    entries = _send(client, (("LRANGE", key, 0, -1) for key in logs.values()))
    members = _send(client, (("SMEMBERS", key) for key in indexes.values()))
    return StoreContents(
        taken_at=taken_at,
        rows=rows,
        keys=_read_keys(client, layout, sessions),
        index={(user, member.decode()) for user, ids in zip(indexes, members, strict=True) for member in ids},
        logs={owner: tuple(map(_access, log)) for owner, log in zip(logs, entries, strict=True)},
    )


def _read_keys(client: redis.Redis, layout: RedisStore, sessions: dict[str, bytes]) -> dict[str, Key]:
    used = layout.fields.last_accessed_at.name
    ttls = _send(client, (("PTTL", key) for key in sessions.values()))
    # MGET answers nothing for a hash.
    texts = [text for group in batches(sessions.values(), _PIPELINE) for text in client.mget(group)]
    hashes = [key for key, text in zip(sessions.values(), texts, strict=True) if text is None]
    of_hash = dict(zip(hashes, _send(client, (("HGET", key, used) for key in hashes)), strict=True))
    keys = {}
    for (session_id, key), ttl, text in zip(sessions.items(), ttls, texts, strict=True):
        if ttl != _NO_KEY:  # else its time was up meanwhile
            seconds = of_hash[key] if text is None else json.loads(text)[used]
            keys[session_id] = Key(None if ttl == _NO_TTL else ttl / 1000, datetime.fromtimestamp(int(seconds), UTC))
    return keys


def _redis_commands(layout: RedisStore, contents: StoreContents) -> Iterator[tuple[Any, ...]]:
    names, fields = KeyNames.parse(layout.keys), layout.fields
    for session_id, key in contents.keys.items():
        assert key.created_at and key.last_accessed_at
        value = {
            fields.user_id: key.user_id,
            fields.created_at.name: int(key.created_at.timestamp()),
            fields.last_accessed_at.name: int(key.last_accessed_at.timestamp()),
        }
        name = names.session.key(session_id)
        if key.is_hash:
            yield "HSET", name, *(part for field in value.items() for part in field)
        else:
            yield "SET", name, json.dumps(value)
        if key.ttl_seconds is not None:
            yield "EXPIRE", name, int(key.ttl_seconds)
    for user, session_id in contents.index:
        if index := names.user_index_key(user):
            yield "SADD", index, session_id
    for session_id, log in contents.logs.items():
        if name_of_log := names.access_log_key(session_id):
            yield "RPUSH", name_of_log, *map(_entry, log)


def _entry(access: Access) -> str:
    location = {"lat": access.latitude, "lon": access.longitude}
    return json.dumps(
        {"time": int(access.at.timestamp()), "ip": access.address, "client": access.client, "location": location}
    )


def _access(entry: bytes) -> Access:
    found = json.loads(entry)
    place = found["location"]
    at = datetime.fromtimestamp(found["time"], UTC)
    return Access(at, found["ip"], found["client"], place["lat"], place["lon"])


def _send(client: redis.Redis, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
    """The replies to these commands, sent in batches."""
    replies: list[Any] = []
    for group in batches(commands, _PIPELINE):
        with client.pipeline(transaction=False) as pipeline:
            for command in group:
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
            replies += pipeline.execute()
    return replies
