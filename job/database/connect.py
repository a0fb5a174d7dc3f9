"""From a database URL to an engine, and from a driver's errors to ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from job.errors import ConfigurationError, DatabaseUnavailableError, RunError
from policy.names import DATABASE_URL_ENV

# What a URL says -> the driver that is installed. The short forms are what most Secrets hold.
_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
}

_CONNECT_TIMEOUT_SECONDS = 10
# A batch that waits longer than this for a lock stands in an application's way: give up and try again.
_LOCK_TIMEOUT_MS = 2_000
_STATEMENT_TIMEOUT_MS = 120_000

# SQLSTATEs after which the same statement may well succeed: serialization failure, deadlock, lock or statement timeout.
_TRANSIENT = frozenset({"40001", "40P01", "55P03", "57014"})
# Classes of SQLSTATEs in which a row's data, a constraint or a trigger (also one that raises) says no.
_REFUSALS = ("09", "22", "23", "27", "2F", "38", "39", "44", "P0")
_TRANSIENT_SQLITE = frozenset({"database is locked", "interrupted"})


def parse_url(text: str) -> URL:
    """The URL with the driver that is installed.

    Raises:
        ConfigurationError: it is not a URL, or of a database that is not supported. The URL itself is not repeated: it
            may hold a password.
    """
    try:
        url = make_url(text.strip())
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigurationError(
            f"{DATABASE_URL_ENV} cannot be read as a URL; expected e.g. postgresql://user:password@host/database"
        ) from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        known = ", ".join(sorted({name.partition("+")[0] for name in _DRIVERS.values()}))
        raise ConfigurationError(f"{DATABASE_URL_ENV} names a database that is not supported; supported: {known}")
    return url.set(drivername=driver)


def create_engine(url: URL, *, create_file: bool = False) -> sa.Engine:
    """An engine without a pool: a run works on one connection, the one that holds its lock.

    Args:
        url: from :func:`parse_url`.
        create_file: whether an SQLite file that does not exist may be created.

    Raises:
        ConfigurationError: the SQLite file does not exist.
    """
    # Parameters are session ids: they must not show in error messages.
    common = {"poolclass": NullPool, "hide_parameters": True}
    if url.get_backend_name() == "sqlite":
        if not create_file and url.database and not Path(url.database).exists():
            raise ConfigurationError(f"{DATABASE_URL_ENV}: there is no SQLite file at its path; `init` creates one")
        try:
            engine = sa.create_engine(url, connect_args={"timeout": _LOCK_TIMEOUT_MS / 1000}, **common)
        except (TypeError, ValueError):
            raise ConfigurationError(f"{DATABASE_URL_ENV} has an option that cannot be used") from None
        sa.event.listen(engine, "connect", _sqlite_manual_transactions)
        sa.event.listen(engine, "begin", _sqlite_begin_immediate)
        return engine
    return sa.create_engine(
        url,
        isolation_level="READ COMMITTED",  # each statement must see what applications have committed since
        connect_args={
            "connect_timeout": _CONNECT_TIMEOUT_SECONDS,
            "application_name": "session-policy",
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "options": f"-c lock_timeout={_LOCK_TIMEOUT_MS} -c statement_timeout={_STATEMENT_TIMEOUT_MS}",
        },
        **common,
    )


def _sqlite_manual_transactions(connection: object, _record: object) -> None:
    connection.isolation_level = None  # type: ignore[attr-defined]  # SQLAlchemy's own recipe: no implicit BEGIN
    # Or what an application keeps about a session would stay behind, in spite of its ON DELETE CASCADE.
    connection.execute("PRAGMA foreign_keys = ON")  # type: ignore[attr-defined]


def _sqlite_begin_immediate(connection: sa.Connection) -> None:
    # Take the write lock at once: a transaction that reads first and writes later may fail half-way.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def is_transient(error: BaseException) -> bool:
    """Whether the same statement may well succeed in a moment."""
    if not isinstance(error, sa.exc.DBAPIError) or error.connection_invalidated:
        return False
    state = getattr(error.orig, "sqlstate", None)
    return state in _TRANSIENT or str(error.orig) in _TRANSIENT_SQLITE


def is_refusal(error: sa.exc.DBAPIError) -> bool:
    """Whether the database refuses to change a particular row: a constraint, a trigger, data that does not fit."""
    state = getattr(error.orig, "sqlstate", None) or ""
    return isinstance(error, sa.exc.IntegrityError) or state.startswith(_REFUSALS)


def is_connection_lost(error: BaseException) -> bool:
    """Whether the connection is gone (and with it the lock)."""
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None) or ""
    return error.connection_invalidated or state.startswith(("08", "57P"))


@dataclass(frozen=True, slots=True)
class _Explanation:
    """What is said of an error that has one of the SQLSTATEs, or one of the phrases in its text.

    A connection that fails has often only a text; other texts may quote data, in which anything can stand.
    """

    states: tuple[str, ...]
    phrases: tuple[str, ...]
    error: type[RunError]
    message: str


# The first that fits counts.
_EXPLANATIONS = (
    _Explanation(
        ("28P01", "28000"),
        ("authentication failed", "no pg_hba.conf entry", 'fatal:  role "'),
        ConfigurationError,
        f"the database refused the login: check user and password in {DATABASE_URL_ENV}",
    ),
    _Explanation(
        ("3D000",),
        ('fatal:  database "',),
        ConfigurationError,
        f"the database named in {DATABASE_URL_ENV} does not exist on the server",
    ),
    _Explanation(
        ("42501",),
        ("readonly database",),
        ConfigurationError,
        "the database user lacks a privilege: it needs SELECT, UPDATE and DELETE on the session table, and SELECT, "
        "INSERT, UPDATE and DELETE on the statistics tables",
    ),
    _Explanation(
        ("3F000", "42P01", "42703", "42804", "42883"),
        ("no such table", "no such column"),
        ConfigurationError,
        "a table or column is not, or no longer, what the policy and `session-policy init` say",
    ),
    _Explanation(
        (),
        (
            "invalid connection option",
            "invalid sslmode",
            "invalid port",
            "invalid integer value",
            "does not support ssl",
        ),
        ConfigurationError,
        f"{DATABASE_URL_ENV} has an option that cannot be used",
    ),
    _Explanation(
        (),
        ("file is not a database", "unable to open database file"),
        ConfigurationError,
        f"{DATABASE_URL_ENV}: the SQLite file cannot be opened as a database",
    ),
    _Explanation((), ("database is locked",), DatabaseUnavailableError, "another program keeps the database locked"),
    _Explanation(
        (),
        ("not known", "could not translate host name", "failed to resolve host"),
        DatabaseUnavailableError,
        "the database's host name does not resolve",
    ),
    _Explanation(
        (), ("refused",), DatabaseUnavailableError, "the database refuses connections: is it up, is the port right?"
    ),
    _Explanation(("57014",), ("timeout", "timed out"), DatabaseUnavailableError, "the database did not answer in time"),
)


def translate(error: sa.exc.SQLAlchemyError) -> RunError:
    """The error as the report may tell it.

    A driver's text is not repeated: it may quote a row's key or a URL.
    """
    original = getattr(error, "orig", None)
    state = getattr(original, "sqlstate", None)
    text = "" if state else str(original).lower()
    detail = f"SQLSTATE {state}" if state else type(original or error).__name__
    for known in _EXPLANATIONS:
        if state in known.states or any(phrase in text for phrase in known.phrases):
            return known.error(f"{known.message} ({detail})")
    return DatabaseUnavailableError(f"the database failed or the connection was lost ({detail})")
