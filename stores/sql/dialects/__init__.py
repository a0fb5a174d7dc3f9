"""The kinds of database that sessions may be in: one package each, and one line here.

A database's package builds on the mapping and the deletions, which know no database and ask :class:`Dialect` for what
differs. So they come here for the dialect of a connection, and the packages are loaded by name when one is asked for.

To add a database: a package with a subclass of :class:`Dialect` and its ``DIALECT``, and its name in ``_PACKAGES``. One
that can find and delete in one statement also implements :class:`stores.sql.removal.bulk_delete.DeletesInBulk`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

import sqlalchemy as sa

from stores.sql.dialects.base import Dialect

__all__ = ["Dialect", "dialect_of", "dialect_of_error", "dialects"]

# Each package has a `DIALECT`.
_PACKAGES = ("postgresql", "mysql", "sqlite")


@cache
def dialects() -> tuple[Dialect, ...]:
    """All kinds of database."""
    return tuple(import_module(f"{__name__}.{package}").DIALECT for package in _PACKAGES)


def dialect_of(source: sa.Engine | sa.Connection | sa.Inspector) -> Dialect:
    """The dialect of an engine, a connection or an inspector."""
    return _named(source.dialect.name)


def dialect_of_error(original: BaseException) -> Dialect | None:
    """The dialect whose driver raised an error; None for what no driver raised."""
    driver = type(original).__module__.partition(".")[0]
    return next((dialect for dialect in dialects() if dialect.driver == driver), None)


@cache
def _named(name: str) -> Dialect:
    return next(dialect for dialect in dialects() if name in dialect.names)
