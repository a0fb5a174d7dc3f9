"""Whether the product's own tables are those that this release needs."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from stores.model.errors import ConfigurationError, TableVersionError
from stores.sql.connection.connect import translate
from stores.sql.mapping.findings import Finding, Severity
from stores.sql.schema.version import VERSION_TABLE, differences, read_version, version_problem

_FIELD = "stores.database"
_INIT = "run `session-policy init`"


def examine_product_tables(connection: sa.Connection, tables: Sequence[sa.Table]) -> Finding | None:
    """What is wrong, or worth knowing, about their version; None if they fit or do not exist. Changes nothing.

    Where no version is recorded (release 0.1.0 did not) or it cannot be read, the columns decide.

    Args:
        connection: in a transaction.
        tables: those of the product's tables that are going to be used.
    """
    refused = None
    try:
        version = read_version(connection)
    except sa.exc.DBAPIError as error:
        refused = translate(error)
        if not isinstance(refused, ConfigurationError):
            raise
        version = None
    if version is not None:
        problem = version_problem(version)
        return Finding(Severity.ERROR, _FIELD, *problem) if problem else None
    inspector = sa.inspect(connection)
    if different := list(differences(inspector, tables)):
        return Finding(
            Severity.ERROR,
            _FIELD,
            f"the product's tables do not have the columns that this release needs ({'; '.join(different)})",
            _INIT,
        )
    if refused:
        return Finding(
            Severity.WARNING,
            _FIELD,
            "the version of the product's tables cannot be read",
            f"GRANT SELECT ON {VERSION_TABLE} to the database user",
        )
    if any(inspector.has_table(table.name) for table in tables):
        return Finding(Severity.INFO, _FIELD, "the product's tables have no recorded version", f"{_INIT} to record it")
    return None


def require_product_tables(connection: sa.Connection, tables: Sequence[sa.Table]) -> Finding | None:
    """As :func:`examine_product_tables`, for what is going to use them.

    Raises:
        TableVersionError: they do not fit.
    """
    finding = examine_product_tables(connection, tables)
    if finding and finding.severity is Severity.ERROR:
        raise TableVersionError(f"{finding.message}: {finding.remedy}")
    return finding
