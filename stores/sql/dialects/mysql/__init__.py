"""MySQL 8 and MariaDB, through PyMySQL."""

from __future__ import annotations

from stores.sql.dialects.mysql.dialect import MySQL

DIALECT = MySQL()
