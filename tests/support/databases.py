"""Databases that come and go with a test."""

from __future__ import annotations

import atexit
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from sqlalchemy import Engine, create_engine, make_url, text


@contextmanager
def fresh_postgres_database(server_url: str) -> Iterator[str]:
    """Create an empty database on the server, yield its URL, drop it whatever still uses it."""
    with _fresh(server_url, "CREATE DATABASE {} TEMPLATE template0", "DROP DATABASE {} WITH (FORCE)") as url:
        yield url


@contextmanager
def fresh_mariadb_database(server_url: str) -> Iterator[str]:
    """Create an empty database on the server, yield its URL, drop it."""
    made = "CREATE DATABASE {} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    with _fresh(server_url, made, "DROP DATABASE {}") as url:
        yield url


@contextmanager
def _fresh(server_url: str, create: str, drop: str) -> Iterator[str]:
    name = f"test_{secrets.token_hex(6)}"
    admin = _admin(server_url)
    with admin.connect() as connection:
        connection.execute(text(create.format(name)))
    try:
        yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(text(drop.format(name)))


@cache
def _admin(server_url: str) -> Engine:
    # One connection for all tests of a process: to open one can take longer than to make a database.
    engine = create_engine(server_url, isolation_level="AUTOCOMMIT", pool_size=1, pool_pre_ping=True)
    atexit.register(engine.dispose)
    return engine
