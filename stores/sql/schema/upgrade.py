"""Creates the product's own tables, or upgrades them: the work of ``session-policy init``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from policy.mapping import SessionTable
from stores.model.errors import DatabaseUnavailableError, LockHeldError, TableVersionError
from stores.sql.dialects import dialect_of
from stores.sql.schema import version
from stores.sql.schema.tables import create_tables, metadata

MIGRATIONS = Path(__file__).with_name("migrations")
_LOCK = "session-policy init"
_LOCK_PATIENCE_SECONDS = 60
_LOCK_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What was done.

    Attributes:
        created: the names of the created tables.
        altered: whether tables that existed were brought up to the version.
        before: the version that was recorded; None where none was.
        after: the version that is recorded now.
    """

    created: tuple[str, ...]
    altered: bool
    before: str | None
    after: str


def upgrade_tables(engine: sa.Engine, table: SessionTable) -> Upgrade:
    """Creates what is missing of the product's tables and upgrades the others, their data kept. Touches no other table.

    Where two do so at once, one waits for the other: for a named lock of the server or, on SQLite, its write lock. On
    PostgreSQL and SQLite everything happens in one transaction. MySQL commits each statement by itself; what was
    interrupted there is continued by the next call.

    Args:
        engine: of the database.
        table: the session table. It is created only if it has the default columns, and never altered: an application
            writes to it.

    Raises:
        TableVersionError: the tables were made by a newer release.
        ConfigurationError: a table has the name of one of the product's, and is not.
        DatabaseUnavailableError: another call has been at work for a minute.
        sqlalchemy.exc.SQLAlchemyError: the database refused.
    """
    with engine.connect() as connection:
        _lock(connection)
        with connection.begin():
            return _upgrade(connection, table)


def _upgrade(connection: sa.Connection, table: SessionTable) -> Upgrade:
    before = version.read_version(connection)
    if before is not None and before > version.CURRENT_VERSION:
        raise TableVersionError(": ".join(version.version_problem(before) or ()))
    inspector = sa.inspect(connection)
    existing = [each for each in metadata.sorted_tables if inspector.has_table(each.name)]
    altered = before != version.CURRENT_VERSION if before else any(version.differences(inspector, existing))
    if before != version.CURRENT_VERSION and (existing or before):
        command.upgrade(_config(connection), "head")
    created = create_tables(connection, table)
    return Upgrade(tuple(created), altered, before, version.CURRENT_VERSION)


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _lock(connection: sa.Connection) -> None:
    """Waits for the lock, which ends with the connection. Each attempt has a transaction of its own.

    The upgrade's transaction begins after it, so that it sees what the other call has committed.
    """
    lock = dialect_of(connection).presence(_LOCK)
    deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
    while lock:
        try:
            with connection.begin():
                lock.acquire(connection)
            return
        except LockHeldError:
            if time.monotonic() > deadline:
                raise DatabaseUnavailableError(
                    f"another `session-policy init` has been at work for {_LOCK_PATIENCE_SECONDS} s; try again when it "
                    "is done"
                ) from None
        time.sleep(_LOCK_POLL_SECONDS)
