"""A database and a Redis with sessions in them, and runs of the synchronisation on both."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
import sqlalchemy as sa

from job.steps.context import RunContext
from job.steps.initialise import Opened, Urls, initialise
from job.steps.progress import Silent
from job.steps.safety import Budget
from job.steps.sync.sync import synchronise
from policy.manifest import SessionPolicy, parse_policy
from policy.presets import PRESETS
from policy.stores import Preset
from stores.model.tally import Tally
from stores.redis.store import RedisStore
from stores.sql.schema.tables import session_table
from stores.waiting.clock import RunClock

KEYS = {"session": "sess:{id}", "userIndex": "user_sess:{user}", "accessLog": "access_log:{id}"}
SECRET = {"secretKeyRef": {"name": "s", "key": "url"}}
GRACE = 120  # what is younger stays so while a slow machine is at it
# Only what a synchronisation looks at.
TABLE = {
    "name": "sessions",
    "columns": {
        "id": {"name": "session_id"},
        "userId": {"name": "user_id"},
        "createdAt": {"name": "created_at"},
        "lastAccessedAt": {"name": "last_accessed_at"},
    },
}


class InstantClock(RunClock):
    """Instead of waiting, lets something happen; time itself stands still."""

    def __init__(self, instead: Callable[[], object] = lambda: None) -> None:
        super().__init__(3600)
        self.waits: list[float] = []
        self._instead = instead

    @property
    def elapsed_seconds(self) -> float:
        return 0.0

    def wait(self, seconds: float) -> None:
        self.checkpoint()
        self.waits.append(seconds)
        self._instead()


class Log:
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def events(self, level: str) -> list[str]:
        return [event for found, event, _ in self.lines if found == level]


class SyncWorld:
    """Stores to fill, to synchronise and to look into. Times are given in seconds before now."""

    def __init__(
        self, database_url: str, redis_url: str, client: Any = None, arrangement: Mapping[str, Any] | None = None
    ) -> None:
        """The client and the fields of stores.redis are for Redis that is not stand-alone."""
        self.arrangement = dict(arrangement or {})
        self.urls = Urls(database_url, redis_url)
        self.engine = sa.create_engine(database_url)
        self.table = session_table(PRESETS[Preset.DEFAULT])
        self.table.metadata.create_all(self.engine)
        self.client = client or redis.Redis.from_url(redis_url)
        self.log = Log()

    def close(self) -> None:
        self.client.close()
        self.engine.dispose()

    def clear(self) -> None:
        self.client.flushdb()
        with self.engine.begin() as connection:
            connection.execute(self.table.delete())

    # --- filling ---

    def row(self, session_id: str, user: str | None = "u1", *, began: float = 3600, used: float = 600) -> None:
        now = datetime.now(UTC)
        with self.engine.begin() as connection:
            connection.execute(
                self.table.insert().values(
                    session_id=session_id,
                    user_id=user,
                    created_at=now - timedelta(seconds=began),
                    last_accessed_at=now - timedelta(seconds=used),
                )
            )

    def drop_row(self, session_id: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(self.table.delete().where(self.table.c.session_id == session_id))

    def key(
        self,
        session_id: str,
        user: str | None = "u1",
        *,
        began: float | None = 3600,
        used: float | None = 600,
        ttl: int | None = 1800,
        kind: str = "json",
    ) -> None:
        now = datetime.now(UTC).timestamp()
        fields: dict[Any, Any] = {"cart": "x"}
        if user is not None:
            fields["userId"] = user
        if began is not None:
            fields["createdAt"] = now - began
        if used is not None:
            fields["lastAccessedAt"] = now - used
        name = f"sess:{session_id}"
        if kind == "json":
            self.client.set(name, json.dumps(fields))
        elif kind == "hash":
            self.client.hset(name, mapping=fields)
        elif kind == "empty":
            self.client.set(name, "not json")
        else:
            self.client.rpush(name, "an application's list")
        if ttl is not None:
            self.client.expire(name, ttl)

    def both(self, session_id: str, user: str = "u1", **key: Any) -> None:
        self.row(session_id, user)
        self.key(session_id, user, **key)

    def index(self, user: str, *ids: str | bytes) -> None:
        self.client.sadd(f"user_sess:{user}", *ids)

    def access_log(self, session_id: str) -> None:
        self.client.rpush(f"access_log:{session_id}", "entry")

    def idle_for(self, session_id: str, seconds: int) -> None:
        """Makes Redis believe that the key was last touched so long ago."""
        name = f"sess:{session_id}"
        ttl, dump = max(0, int(self.client.pttl(name))), self.client.dump(name)
        self.client.restore(name, ttl, dump, replace=True, idletime=seconds)  # type: ignore[arg-type]

    # --- looking ---

    def key_names(self) -> set[str]:
        return {key.decode() for key in self.client.scan_iter(count=1000)}

    def rows(self) -> set[str]:
        with self.engine.connect() as connection:
            return set(connection.scalars(sa.select(self.table.c.session_id)))

    def members(self, user: str) -> set[bytes]:
        return set(self.client.smembers(f"user_sess:{user}"))

    def ttl(self, session_id: str) -> int:
        return int(self.client.ttl(f"sess:{session_id}"))

    def snapshot(self) -> dict[bytes, bytes]:
        """Every key with its content, byte for byte."""
        return {key: self.client.dump(key) for key in self.client.scan_iter(count=1000)}  # type: ignore[misc]

    # --- running ---

    def policy(self, **spec: Any) -> SessionPolicy:
        keys, table = spec.pop("keys", KEYS), spec.pop("table", TABLE)
        database = {"urlFrom": SECRET, "table": table}
        return parse_policy(
            {
                "apiVersion": "sessionpolicy.dev/v1alpha1",
                "kind": "SessionPolicy",
                "metadata": {"name": "shop"},
                "spec": {
                    "stores": {"database": database, "redis": {"urlFrom": SECRET, "keys": keys, **self.arrangement}},
                    "sync": {"graceSeconds": GRACE, **spec.pop("sync", {})},
                    "retries": {"redis": {"attempts": 0, "delaySeconds": 0}, **spec.pop("retries", {})},
                    "statistics": {"enabled": False},
                    **spec,
                },
            }
        )

    def open(self, policy: SessionPolicy, clock: RunClock) -> Opened:
        return initialise(policy.spec, self.urls, clock, self.log)

    def run(
        self, *, clock: RunClock | None = None, dry_run: bool = False, tally: Tally | None = None, **spec: Any
    ) -> Tally:
        """One synchronisation. Its log must not name a session or a user."""
        policy, clock, tally = self.policy(**spec), clock or InstantClock(), tally or Tally()
        opened = self.open(policy, clock)
        assert isinstance(opened.redis, RedisStore)
        try:
            synchronise(
                RunContext(
                    policy=policy,
                    dry_run=dry_run,
                    database=opened.database,
                    redis=opened.redis,
                    clock=clock,
                    tally=tally,
                    progress=Silent(),
                    log=self.log,
                    budget=_budget(policy.spec.safety.max_deletions, tally),
                )
            )
        finally:
            opened.connection.close()
            opened.redis.close()
        return tally


def changes(tally: Tally) -> tuple[int, int, int, int]:
    """What a run changed: rows, session keys, index entries, TTLs."""
    found = tally.redis
    return tally.deleted, found.deleted, found.index_entries_removed, found.ttl_added


def _budget(limit: int, spent: Tally) -> Budget:
    budget = Budget(limit)
    budget.spend(spent.deleted)
    return budget
