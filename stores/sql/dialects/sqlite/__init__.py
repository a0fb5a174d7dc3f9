"""SQLite, through the standard library."""

from __future__ import annotations

from stores.sql.dialects.sqlite.dialect import SQLite

DIALECT = SQLite()
