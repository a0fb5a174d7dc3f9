"""Sessions in a database and a Redis: to fill, and to look into."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
import sqlalchemy as sa

from policy.presets import DatabasePreset
from stores.sql.connection.connect import create_engine, parse_url
from stores.sql.schema.tables import create_tables, history, session_table, settings, statistics

HOUR = 3600
TABLE = session_table(DatabasePreset.DEFAULT.table)


class SessionStores:
    """The default tables in a database, and a Redis. Times are given in seconds before now."""

    def __init__(self, database_url: str, redis_url: str | None = None) -> None:
        self.database_url = database_url
        self.redis_url = redis_url
        self.engine = create_engine(parse_url(database_url), create_file=True)
        _create_default_tables(self.engine)
        self._redis = redis.Redis.from_url(redis_url) if redis_url else None

    @property
    def redis(self) -> redis.Redis:
        assert self._redis is not None
        return self._redis

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @property
    def is_mysql(self) -> bool:
        return self.engine.dialect.name in ("mysql", "mariadb")

    def close(self) -> None:
        if self._redis is not None:
            self._redis.close()
        self.engine.dispose()

    # --- filling ---

    def rows(self, rows: Iterable[dict[str, Any]]) -> None:
        """Inserts rows of the session table; what is left out is live."""
        now = datetime.now(UTC)
        live = {"user_id": "u", "created_at": now - timedelta(hours=1), "last_accessed_at": now, "expires_at": None}
        complete = [{**live, **row} for row in rows]
        if complete:
            with self.engine.begin() as connection:
                connection.execute(TABLE.insert(), complete)

    def add(
        self,
        session_id: str,
        user: str | None = "u",
        *,
        began: float = HOUR,
        used: float = 60,
        ends: float | None = None,
    ) -> None:
        """A row; `ends` is how many seconds ahead its own expiry lies."""
        self.add_many([(session_id, user)], began=began, used=used, ends=ends)

    def add_many(
        self,
        sessions: Iterable[tuple[str, str | None]],
        *,
        began: float = HOUR,
        used: float = 60,
        ends: float | None = None,
    ) -> None:
        now = datetime.now(UTC)
        self.rows(
            {
                "session_id": session_id,
                "user_id": user,
                "created_at": now - timedelta(seconds=began),
                "last_accessed_at": now - timedelta(seconds=used),
                "expires_at": None if ends is None else now + timedelta(seconds=ends),
            }
            for session_id, user in sessions
        )

    def add_key(
        self, session_id: str, user: str | None = "u", *, used: float | None = 60, ttl: int | None = HOUR
    ) -> None:
        """A session in Redis, with its index entry and access log."""
        content: dict[str, Any] = {} if user is None else {"userId": user}
        if used is not None:
            content["lastAccessedAt"] = datetime.now(UTC).timestamp() - used
        with self.redis.pipeline() as pipeline:
            pipeline.set(f"sess:{session_id}", json.dumps(content), ex=ttl)
            pipeline.lpush(f"access_log:{session_id}", "entry")
            if user is not None:
                pipeline.sadd(f"user_sess:{user}", session_id)
            pipeline.execute()

    def touch(self, session_id: str) -> None:
        """What an application does on a request."""
        with self.engine.begin() as connection:
            connection.execute(
                TABLE.update().where(TABLE.c.session_id == session_id).values(last_accessed_at=datetime.now(UTC))
            )

    def set_global(self, *, idle: int | None = None, absolute: int | None = None, most: int | None = None) -> None:
        """A stored setting for everybody."""
        with self.engine.begin() as connection:
            connection.execute(
                settings.insert().values(
                    scope="Global",
                    subject="",
                    idle_timeout_seconds=idle,
                    absolute_timeout_seconds=absolute,
                    max_sessions=most,
                )
            )

    def sql(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """An application's transaction that stays open."""
        with self.engine.begin() as connection:
            yield connection

    # --- looking ---

    def ids(self) -> set[str]:
        with self.engine.begin() as connection:
            return set(connection.scalars(sa.select(TABLE.c.session_id)))

    def statistics(self) -> list[dict[str, Any]]:
        with self.engine.begin() as connection:
            return [dict(row) for row in connection.execute(sa.select(statistics)).mappings()]

    def history(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(user, cause) -> (sessions, seconds)."""
        with self.engine.begin() as connection:
            return {
                (row.user_id, row.cause): (row.sessions, row.total_seconds)
                for row in connection.execute(sa.select(history))
            }

    def redis_keys(self) -> set[str]:
        return {key.decode() for key in self.redis.scan_iter(count=1000)}

    def members(self, user: str) -> set[str]:
        """The session ids in a user's index."""
        return {member.decode() for member in self.redis.smembers(f"user_sess:{user}")}  # type: ignore[union-attr]

    def dump(self) -> dict[str, Any]:
        """Everything in both stores."""
        everything: dict[str, Any] = {}
        reflected = sa.MetaData()
        with self.engine.begin() as connection:
            reflected.reflect(connection)
            for table in reflected.sorted_tables:
                everything[table.name] = sorted(map(repr, connection.execute(sa.select(table))))
        if self._redis is not None:
            for key in self._redis.scan_iter(count=1000):
                # A TTL runs down by itself: only whether there is one counts.
                everything[f"redis {key!r}"] = (self._redis.dump(key), self._redis.ttl(key) >= 0)
        return everything


_Statements = list[tuple[str, Any]]
_STATEMENTS: dict[str, _Statements] = {}


def _create_default_tables(engine: sa.Engine) -> None:
    """Call `create_tables`; in the next empty database only repeat its statements, which takes it long to find."""
    kind = engine.dialect.name
    if kind in _STATEMENTS:
        try:
            with engine.begin() as connection:
                for statement, parameters in _STATEMENTS[kind]:
                    connection.exec_driver_sql(statement, parameters)
            return
        except sa.exc.DatabaseError:
            pass  # there are tables already: `create_tables` looks for each
    is_empty = sa.inspect(engine).get_table_names() == []
    made: _Statements = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if statement.lstrip().upper().startswith(("CREATE", "ALTER", "INSERT", "UPDATE", "COMMENT")):
            made.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", note)
    with engine.begin() as connection:
        create_tables(connection, DatabasePreset.DEFAULT.table)
    sa.event.remove(engine, "before_cursor_execute", note)
    if is_empty:
        _STATEMENTS[kind] = made
