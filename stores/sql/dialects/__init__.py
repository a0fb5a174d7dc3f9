"""The kinds of database that sessions may be in: one module each."""

from __future__ import annotations

import sqlalchemy as sa

from stores.sql.dialects.base import Dialect
from stores.sql.dialects.mysql import MySQL
from stores.sql.dialects.postgresql import PostgreSQL
from stores.sql.dialects.sqlite import SQLite

__all__ = ["DIALECTS", "Dialect", "dialect_of", "dialect_of_error"]

DIALECTS: tuple[Dialect, ...] = (PostgreSQL(), MySQL(), SQLite())

_BY_NAME = {dialect.name: dialect for dialect in DIALECTS} | {"mariadb": DIALECTS[1]}
_BY_DRIVER = {dialect.driver: dialect for dialect in DIALECTS}


def dialect_of(source: sa.Engine | sa.Connection | sa.Inspector) -> Dialect:
    """The dialect of an engine, a connection or an inspector."""
    return _BY_NAME[source.dialect.name]


def dialect_of_error(original: BaseException) -> Dialect | None:
    """The dialect whose driver raised an error; None for what no driver raised."""
    return _BY_DRIVER.get(type(original).__module__.partition(".")[0])
