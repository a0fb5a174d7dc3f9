"""PostgreSQL, through psycopg."""

from __future__ import annotations

from stores.sql.dialects.postgresql.dialect import PostgreSQL

DIALECT = PostgreSQL()
