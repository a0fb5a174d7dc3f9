"""Looking into the stores, without leaving a trace that the run could take for a use of a session."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
import sqlalchemy as sa

from job.demo.snapshot import Row, Snapshot
from policy.presets import DatabasePreset
from policy.stores import RedisFields, RedisStore
from stores.model.batches import batches
from stores.redis.content.access_log import read_entry
from stores.redis.content.session_content import from_hash, from_json, hash_fields
from stores.redis.keys import KeyNames
from stores.rules.details import Access
from stores.sql.schema.tables import session_table

_SCAN_COUNT = 5000
_PIPELINE = 2000


class Inspector:
    """Reads everything that both stores hold.

    Args:
        engine: the database.
        client: Redis; it returns bytes.
        layout: how keys are named and sessions are read.
    """

    def __init__(self, engine: sa.Engine, client: redis.Redis, layout: RedisStore) -> None:
        self._engine = engine
        self._client = client
        self._names = KeyNames.parse(layout.keys)
        self._fields: RedisFields = layout.fields

    def snapshot(self, idle: timedelta) -> Snapshot:
        """The stores as they are now.

        Args:
            idle: Redis is asked about sessions that the database has not seen in use for this long. Others are not
                read: to Redis that would be a use of the key, and the run asks how long a key has not been used.
        """
        now = datetime.now(UTC)
        with self._engine.connect() as connection:
            table = session_table(DatabasePreset.DEFAULT.table)
            rows = {row[0]: Row(*row) for row in connection.execute(sa.select(table))}
        session_ids, logs, indexes = self._keys()
        seem_idle = [i for i in session_ids if i in rows and rows[i].last_accessed_at < now - idle]
        return Snapshot(
            taken_at=now,
            rows=rows,
            ttls=self._ttls(session_ids),
            used=self._used(seem_idle),
            index=frozenset(self._index(indexes)),
            logs=self._accesses(logs),
        )

    def _keys(self) -> tuple[list[str], list[str], dict[str, bytes]]:
        """Sessions with a key, sessions with an access log, and users with their index's key."""
        session_ids, logs, indexes = [], [], {}
        names = self._names
        for key in self._client.scan_iter(count=_SCAN_COUNT):
            if names.is_access_log(key) and names.access_log:
                logs.append(names.access_log.name(key) or "")
            elif names.user_index and names.user_index.matches(key):
                indexes[names.user_index.name(key) or ""] = key
            elif (session_id := names.session_id(key)) is not None:
                session_ids.append(session_id)
        return session_ids, logs, indexes

    def _ttls(self, session_ids: list[str]) -> dict[str, float | None]:
        replies = self._ask(("PTTL", self._names.session.key(i)) for i in session_ids)
        # -2: it ran out since it was listed; -1: it has none.
        found = zip(session_ids, replies, strict=True)
        return {i: None if ttl == -1 else ttl / 1000 for i, ttl in found if ttl != -2}  # noqa: PLR2004

    def _used(self, session_ids: list[str]) -> dict[str, datetime]:
        keys = [self._names.session.key(i) for i in session_ids]
        hashes = [kind == b"hash" for kind in self._ask(("TYPE", key) for key in keys)]
        fields = hash_fields(self._fields)
        replies = self._ask(
            ("HMGET", key, *fields) if is_hash else ("GET", key) for key, is_hash in zip(keys, hashes, strict=True)
        )
        used = {}
        for session_id, is_hash, reply in zip(session_ids, hashes, replies, strict=True):
            content = from_hash(reply, self._fields) if is_hash else from_json(reply or b"", self._fields)
            if content.last_accessed_at:
                used[session_id] = content.last_accessed_at
        return used

    def _accesses(self, session_ids: list[str]) -> dict[str, tuple[Access, ...]]:
        replies = self._ask(("LRANGE", self._names.access_log_key(i) or "", "0", "-1") for i in session_ids)
        return {i: tuple(map(read_entry, reply)) for i, reply in zip(session_ids, replies, strict=True)}

    def _index(self, indexes: dict[str, bytes]) -> Iterator[tuple[str, str]]:
        replies = self._ask(("SMEMBERS", key) for key in indexes.values())
        for user, members in zip(indexes, replies, strict=True):
            for member in members:
                yield user, member.decode()

    def _ask(self, commands: Iterable[tuple[str | bytes, ...]]) -> list[Any]:
        replies: list[Any] = []
        for group in batches(commands, _PIPELINE):
            with self._client.pipeline(transaction=False) as pipeline:
                for command in group:
                    pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                replies += pipeline.execute()
        return replies
