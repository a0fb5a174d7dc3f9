"""Makes an engine of a database URL, and errors for the report of those of the driver."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from policy.names import DATABASE_URL_ENV
from stores.model.errors import ConfigurationError, DatabaseUnavailableError, RunError
from stores.sql.dialects import dialect_of_error, dialects


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
    # The short forms are what most Secrets hold.
    driver = next((d.drivers[url.drivername] for d in dialects() if url.drivername in d.drivers), None)
    if driver is None:
        known = ", ".join(sorted(dialect.name for dialect in dialects()))
        raise ConfigurationError(f"{DATABASE_URL_ENV} names a database that is not supported; supported: {known}")
    return url.set(drivername=driver)


def create_engine(url: URL, *, create_file: bool = False) -> sa.Engine:
    """An engine without a pool: a run works on one connection, the one that holds its lock.

    Args:
        url: from :func:`parse_url`.
        create_file: whether an SQLite file that does not exist may be created.

    Raises:
        ConfigurationError: the SQLite file does not exist, or the driver is not installed.
    """
    dialect = next(dialect for dialect in dialects() if url.drivername in dialect.drivers.values())
    return dialect.create_engine(url, create_file)


def is_transient(error: BaseException) -> bool:
    """Whether the same statement may succeed when it is tried again."""
    if not isinstance(error, sa.exc.DBAPIError) or error.connection_invalidated or error.orig is None:
        return False
    dialect = dialect_of_error(error.orig)
    return dialect is not None and dialect.is_transient(error.orig)


def is_refusal(error: sa.exc.DBAPIError) -> bool:
    """Whether the database refuses to change a particular row: a constraint, a trigger, data that does not fit."""
    if isinstance(error, sa.exc.IntegrityError):
        return True
    dialect = dialect_of_error(error.orig) if error.orig is not None else None
    return dialect is not None and error.orig is not None and dialect.is_refusal(error.orig)


def is_connection_lost(error: BaseException) -> bool:
    """Whether the connection is gone (and with it the lock)."""
    if not isinstance(error, sa.exc.DBAPIError) or error.orig is None:
        return False
    dialect = dialect_of_error(error.orig)
    return error.connection_invalidated or (dialect is not None and dialect.is_connection_lost(error.orig))


def translate(error: sa.exc.SQLAlchemyError) -> RunError:
    """The error for the report.

    A driver's text is not repeated: it may quote a row's key or a URL.
    """
    original = getattr(error, "orig", None)
    dialect = dialect_of_error(original) if original is not None else None
    code = dialect.code(original) if dialect and original is not None else None
    text = dialect.error_text(original) if dialect and original is not None else ""
    detail = code or type(original or error).__name__
    for explanation in dialect.explanations if dialect else ():
        if any(needle in text for needle in explanation.needles):
            return explanation.kind(f"{explanation.text} ({detail})")
    return DatabaseUnavailableError(f"the database failed or the connection was lost ({detail})")


def as_run_error(error: Exception) -> RunError:
    """The error for the report, whatever it was."""
    if isinstance(error, RunError):
        return error
    if isinstance(error, sa.exc.SQLAlchemyError):
        return translate(error)
    return RunError(f"unexpected {type(error).__name__}; the error log has the stack trace")
