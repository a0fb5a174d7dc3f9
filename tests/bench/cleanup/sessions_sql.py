"""Sessions made up by the database itself, a million in seconds.

All expire by the idle timeout of one day: live ones were used within the last hour, so that none expires during the
longest benchmark; expired ones two to thirty days ago. Which is which is random, and so is the order of the ids, which
are hashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pymysql
import sqlalchemy as sa

from policy.presets import DatabasePreset
from stores.sql.connection.connect import create_engine, parse_url
from stores.sql.schema.tables import create_tables

IDLE_SECONDS = 86_400
#: What bare statements compare with. A run gives sessions a few seconds more, in which none of these was last used.
CUTOFF = f"now() - interval '{IDLE_SECONDS} seconds'"
IDLE = f"last_accessed_at < {CUTOFF}"

USERS_PER_SESSION = 0.4

_POSTGRES = """
INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at, expires_at, client, address)
SELECT encode(sha256(('session-' || i)::bytea), 'hex'), 'user-' || (random() * {users})::int,
  used - random() * interval '20 minutes', used, CASE WHEN random() < 0.4 THEN used + interval '90 days' END,
  'Mozilla/5.0 (X11; Linux x86_64; rv:' || i % 97 || '.0) Gecko/20100101 Firefox/' || i % 89 || '.0',
  '192.0.2.' || i % 255
FROM (
  SELECT i, now() - CASE WHEN random() < {share} THEN interval '2 days' + random() * interval '28 days'
    ELSE random() * interval '1 hour' END AS used
  FROM generate_series(1, {sessions}) AS i OFFSET 0
) AS made
"""

_MARIADB = """
INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at, expires_at, client, address)
SELECT id, CONCAT('user-', FLOOR(RAND() * {users})), used - INTERVAL 10 MINUTE, used,
  IF(RAND() < 0.4, used + INTERVAL 90 DAY, NULL),
  CONCAT('Mozilla/5.0 (X11; Linux x86_64; rv:', i % 97, '.0) Gecko/20100101 Firefox/', i % 89, '.0'),
  CONCAT('192.0.2.', i % 255)
FROM (
  SELECT seq AS i, SHA2(CONCAT('session-', seq), 256) AS id, UTC_TIMESTAMP(6) - INTERVAL IF(RAND() < {share},
    FLOOR(172800 + RAND() * 2419200), FLOOR(RAND() * 3600)) SECOND AS used
  FROM seq_1_to_{sessions} ORDER BY id
) AS made
"""


def fill_postgres(url: str, sessions: int, expired_share: float, fillfactor: int = 100) -> None:
    """Makes the default tables, and fills the session table.

    Args:
        url: of the database, empty.
        sessions: how many.
        expired_share: how many of them have expired.
        fillfactor: how much of each page is filled, in percent.
    """
    users = int(sessions * USERS_PER_SESSION)
    load_postgres(url, _POSTGRES.format(sessions=sessions, users=users, share=expired_share), fillfactor)


def load_postgres(url: str, statement: str, fillfactor: int = 100) -> None:
    """Makes the default tables, and fills the session table by a statement."""
    create_default_tables(url)
    with autocommit(url) as connection:
        connection.execute("SELECT setseed(0.5)")
        connection.execute(f"ALTER TABLE sessions SET (fillfactor = {int(fillfactor)})")
        with without_indexes(connection, "sessions"):
            connection.execute(statement)
    settle(url)


def settle(url: str) -> None:
    """Leaves nothing to do for later, and the statistics right."""
    with autocommit(url) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def fill_mariadb(url: str, sessions: int, expired_share: float) -> None:
    """As :func:`fill_postgres`, in MariaDB."""
    create_default_tables(url)
    users = int(sessions * USERS_PER_SESSION)
    with mysql_autocommit(url) as connection:
        cursor = connection.cursor()
        cursor.execute("SHOW CREATE TABLE sessions")
        keys = re.findall(r"^ *(KEY (`\w+`) .*?),?$", cursor.fetchone()[1], re.MULTILINE)
        cursor.execute("ALTER TABLE sessions " + ", ".join(f"DROP INDEX {name}" for _, name in keys))
        cursor.execute(_MARIADB.format(sessions=sessions, users=users, share=expired_share))
        cursor.execute("ALTER TABLE sessions " + ", ".join(f"ADD {key}" for key, _ in keys))
        cursor.execute("ANALYZE TABLE sessions")


def create_default_tables(url: str) -> None:
    """What ``session-policy init`` makes."""
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        create_tables(connection, DatabasePreset.DEFAULT.table)
    engine.dispose()


@contextmanager
def autocommit(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A bare connection without the time limits of a run."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


@contextmanager
def mysql_autocommit(url: str) -> Iterator[Any]:
    """Likewise, of MariaDB."""
    at = sa.make_url(url)
    connection = pymysql.connect(
        host=at.host or "", port=at.port or 0, user=at.username, database=at.database, autocommit=True
    )
    try:
        yield connection
    finally:
        connection.close()


def number(url: str, query: str) -> int:
    """The one number a query yields."""
    with autocommit(url) as connection:
        (found,) = connection.execute(query).fetchone() or (0,)
        return int(found)


def copy_of(server_url: str, source: str, target: str) -> None:
    """Makes a database the same as another, in place of what it was."""
    with autocommit(server_url) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {target} WITH (FORCE)")
        # By files: it is fast, and ends with a checkpoint.
        connection.execute(f"CREATE DATABASE {target} TEMPLATE {source} STRATEGY file_copy")


@contextmanager
def without_indexes(connection: psycopg.Connection[Any], table: str) -> Iterator[None]:
    """Filling a table first and indexing it then is several times as fast."""
    rows: Sequence[Any] = connection.execute(
        "SELECT i.indexrelid::regclass::text, c.conname, coalesce(pg_get_constraintdef(c.oid), pg_get_indexdef("
        "i.indexrelid)) FROM pg_index i LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid "
        "WHERE i.indrelid = %s::regclass",
        [table],
    ).fetchall()
    for index, constraint, _ in rows:
        connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}" if constraint else f"DROP INDEX {index}")
    yield
    for _, constraint, definition in rows:
        connection.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT {constraint} {definition}" if constraint else definition
        )
