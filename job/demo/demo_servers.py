"""The demo's two servers, with clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
import sqlalchemy as sa

from job.demo.servers import EmbeddedPostgres, EmbeddedRedis
from job.steps.initialise import Urls
from stores.sql.connection.connect import create_engine, parse_url


@dataclass(frozen=True, slots=True)
class Servers:
    """Two running servers.

    Attributes:
        urls: for a run.
        engine: the database, for the demo itself.
        client: Redis, likewise; it returns bytes.
    """

    urls: Urls
    engine: sa.Engine
    client: redis.Redis

    @property
    def versions(self) -> str:
        """Their names and versions."""
        with self.engine.connect() as connection:
            postgres = str(connection.exec_driver_sql("SHOW server_version").scalar_one()).split()[0]
        server = self.client.info("server")
        # Valkey names a version of Redis as well, for clients that look for one.
        name = "Valkey" if "valkey_version" in server else "Redis"
        return f"PostgreSQL {postgres} and {name} {server[f'{name.lower()}_version']}"


@contextmanager
def running(directory: Path | None) -> Iterator[Servers]:
    """Both servers, until the end of the block, however it ends.

    Args:
        directory: where they keep their data; None for a temporary place.

    Raises:
        EmbeddedServerUnavailable: one is not installed; the message says how to get it.
        EmbeddedServerError: one does not start.
    """
    kept = directory is not None
    postgres = EmbeddedPostgres(directory / "postgres" if directory else None, durable=kept)
    store = EmbeddedRedis(directory / "redis" if directory else None, options={"appendonly": "yes"} if kept else None)
    with store, postgres:
        engine = create_engine(parse_url(postgres.url))
        client = redis.Redis.from_url(store.url)
        try:
            yield Servers(Urls(postgres.url, store.url), engine, client)
        finally:
            client.close()
            engine.dispose()
