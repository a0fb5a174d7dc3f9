"""An application with users who log in, come back and log out, in the stores that a run is cleaning up."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import redis
import sqlalchemy as sa

from tests.support.session_stores import HOUR, TABLE, SessionStores


class Application(threading.Thread):
    """One worker of an application. It keeps its own record of what is live, and of everything that went wrong.

    It does what applications do: a login writes the row, then Redis; a request reads both and notes the access; a
    logout deletes from Redis, then the row. Some users come back to a session that was idle for almost too long.

    Args:
        stores: where sessions are.
        name: makes session ids differ from those of other workers.
        seed: of its choices.
        ripe_seconds: how long ago a session was used at most when its user comes back.
    """

    def __init__(self, stores: SessionStores, name: str, seed: int, ripe_seconds: float) -> None:
        super().__init__(name=name, daemon=True)
        url = stores.engine.url
        # SQLite serves those who wait for its lock in no order: on a busy machine somebody may wait for long.
        patience = {"connect_args": {"timeout": 60}} if url.get_backend_name() == "sqlite" else {}
        self._engine = sa.create_engine(url, **patience)
        self._redis = redis.Redis.from_url(stores.redis_url or "")
        self._random = random.Random(seed)
        self._ripe_seconds = ripe_seconds
        self._ended = threading.Event()
        self._count = 0
        self.live: dict[str, str] = {}
        self.ripe: set[str] = set()
        self.ended: set[str] = set()
        self.requests = 0
        self.problems: list[str] = []

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                self._do_something()
            except Exception as error:
                self.problems.append(f"{type(error).__name__}: {error}")
                return

    def _do_something(self) -> None:
        deeds: list[tuple[Callable[[], object], int]] = [
            (self.log_in, 4),
            (self.log_in_and_idle, 2),
            (self.request, 10),
            (self.come_back, 4),
            (self.log_out, 2),
        ]
        self._random.choices([deed for deed, _ in deeds], [weight for _, weight in deeds])[0]()

    def finish(self) -> None:
        self._ended.set()
        self.join(30)
        self._engine.dispose()
        self._redis.close()
        assert not self.is_alive()

    # --- what users do ---

    def log_in(self, idle: float = 0.0) -> str:
        self._count += 1
        session_id = f"{self.name}-{self._count}"
        user = f"{self.name}-user{self._random.randrange(200)}"
        used = datetime.now(UTC).timestamp() - idle
        moment = datetime.fromtimestamp(used, UTC)
        with self._engine.begin() as connection:
            connection.execute(
                TABLE.insert().values(session_id=session_id, user_id=user, created_at=moment, last_accessed_at=moment)
            )
        with self._redis.pipeline() as pipeline:
            pipeline.set(f"sess:{session_id}", f'{{"userId":"{user}","lastAccessedAt":{used}}}', ex=HOUR)
            pipeline.sadd(f"user_sess:{user}", session_id)
            pipeline.lpush(f"access_log:{session_id}", "entry")
            pipeline.execute()
        self.live[session_id] = user
        return session_id

    def log_in_and_idle(self) -> None:
        """A session whose user was away for nearly as long as allowed; it is the next one to be used."""
        self.ripe.add(self.log_in(idle=self._ripe_seconds))

    def request(self) -> None:
        if self.live:
            self._use(self._random.choice(list(self.live)))

    def come_back(self) -> None:
        if self.ripe:
            self._use(self.ripe.pop())

    def log_out(self) -> None:
        if not self.live:
            return
        session_id = self._random.choice(list(self.live))
        user = self.live.pop(session_id)
        self.ripe.discard(session_id)
        self.ended.add(session_id)
        with self._redis.pipeline() as pipeline:
            pipeline.delete(f"sess:{session_id}", f"access_log:{session_id}")
            pipeline.srem(f"user_sess:{user}", session_id)
            pipeline.execute()
        with self._engine.begin() as connection:
            connection.execute(TABLE.delete().where(TABLE.c.session_id == session_id))

    def _use(self, session_id: str) -> None:
        self.requests += 1
        user = self.live[session_id]
        if not self._redis.exists(f"sess:{session_id}"):
            self.problems.append(f"{session_id}: a live session is gone from Redis")
        now = datetime.now(UTC)
        with self._engine.begin() as connection:
            used = connection.execute(
                TABLE.update().where(TABLE.c.session_id == session_id).values(last_accessed_at=now)
            )
            if used.rowcount != 1:
                self.problems.append(f"{session_id}: a live session is gone from the database")
            if self._random.random() < 0.2:
                time.sleep(0.002)  # an application's transaction does more than that
        self._redis.set(f"sess:{session_id}", f'{{"userId":"{user}","lastAccessedAt":{now.timestamp()}}}', ex=HOUR)
        self.ripe.discard(session_id)


def lost(stores: SessionStores, live: dict[str, str]) -> dict[str, list[str]]:
    """What is missing of each live session, in either store."""
    rows, keys = stores.ids(), stores.redis_keys()
    members: dict[str, set[bytes]] = {
        user: stores.redis.smembers(f"user_sess:{user}")  # type: ignore[misc]
        for user in set(live.values())
    }
    missing = {
        session_id: [
            *([] if session_id in rows else ["row"]),
            *([] if f"sess:{session_id}" in keys else ["key"]),
            *([] if f"access_log:{session_id}" in keys else ["access log"]),
            *([] if session_id.encode() in members[user] else ["index entry"]),
        ]
        for session_id, user in live.items()
    }
    return {session_id: what for session_id, what in missing.items() if what}
