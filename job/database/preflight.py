"""Refusing a table that is not what its mapping says, before anything is changed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from job.database.table import MappedTable
from job.errors import ConfigurationError
from policy.presets import SessionTable
from policy.stores import Column, TimeColumn, TimeEncoding

_NUMERIC = (TimeEncoding.EPOCH_SECONDS, TimeEncoding.EPOCH_MILLISECONDS, TimeEncoding.JULIAN_DAY)


def check_table(inspector: sa.Inspector, table: SessionTable) -> MappedTable:
    """The table ready for use.

    Raises:
        ConfigurationError: it is missing, a column is missing or of a type its encoding does not fit, or the id is not
            unique. The message lists every problem at once.
    """
    dialect = inspector.dialect.name
    where = f"stores.database.table {_name(table)}"
    try:
        if table.schema and table.schema not in inspector.get_schema_names():
            raise sa.exc.NoSuchTableError(table.name)
        reflected = {c["name"]: _base(c["type"]) for c in inspector.get_columns(table.name, schema=table.schema)}
    except sa.exc.NoSuchTableError:
        raise ConfigurationError(
            f"{where}: there is no such table or view in the database; "
            "`session-policy init` creates the default one, otherwise name yours"
        ) from None
    problems = list(_problems(table, reflected, dialect))
    if not problems and not _is_unique(inspector, table):
        problems.append(
            f"columns.id: {table.columns.id.name!r} has no primary key or unique index of its own; "
            "without one a session cannot be told from another"
        )
    if problems:
        raise ConfigurationError(f"{where}: " + "; ".join(problems))
    id_column = reflected[table.columns.id.name]
    return MappedTable(table, dialect, _id_type(id_column), is_padded=isinstance(id_column, sa.CHAR))


def _name(table: SessionTable) -> str:
    return ".".join(repr(part) for part in (table.schema, table.name) if part)


def _mapped(table: SessionTable) -> Iterator[tuple[str, Column]]:
    for field in type(table.columns).model_fields:
        column = getattr(table.columns, field)
        if column is not None:
            yield type(table.columns).model_fields[field].alias or field, column


def _problems(table: SessionTable, reflected: Mapping[str, Any], dialect: str) -> Iterator[str]:
    for field, column in _mapped(table):
        if column.name not in reflected:
            known = ", ".join(repr(name) for name in list(reflected)[:20])
            yield f"columns.{field}: there is no column {column.name!r}; the table has {known}"
        elif isinstance(column, TimeColumn):
            yield from _time_problems(field, column, reflected[column.name], dialect)
        elif field == "id" and not _can_be_id(reflected[column.name], dialect):
            yield (
                f"columns.id: {column.name!r} is of type {reflected[column.name]}; text, whole numbers and UUIDs are "
                "supported"
            )


def _time_problems(field: str, column: TimeColumn, kind: Any, dialect: str) -> Iterator[str]:
    what = f"columns.{field}: {column.name!r} is of type {kind}"
    try:
        ZoneInfo(column.time_zone)
    except (ZoneInfoNotFoundError, ValueError):
        yield f"columns.{field}.timeZone: {column.time_zone!r} is not an IANA time zone"
    if dialect == "sqlite":
        # Its columns have no fixed type, but one declared as text compares numbers digit by digit.
        if column.encoding in _NUMERIC and isinstance(kind, sa.String):
            yield f"{what}, which compares as text; encoding {column.encoding} needs a number"
        return
    if column.encoding in _NUMERIC:
        if not isinstance(kind, sa.Integer | sa.Numeric | sa.Float):
            yield f"{what}; encoding {column.encoding} needs a number"
        return
    if not isinstance(kind, sa.DateTime):
        yield f"{what}; encoding {column.encoding} needs a timestamp (for numbers choose EpochSeconds, …)"
    elif dialect == "postgresql" and kind.timezone != (column.encoding is TimeEncoding.TIMESTAMP):
        if kind.timezone:
            yield f"{what}, with time zone: use encoding Timestamp"
        else:
            yield f"{what}, without time zone: use encoding NaiveTimestamp and say in timeZone which zone is meant"


def _is_unique(inspector: sa.Inspector, table: SessionTable) -> bool:
    wanted = [table.columns.id.name]
    if inspector.get_pk_constraint(table.name, schema=table.schema).get("constrained_columns") == wanted:
        return True
    if any(u["column_names"] == wanted for u in inspector.get_unique_constraints(table.name, schema=table.schema)):
        return True
    return any(
        index["unique"] and index["column_names"] == wanted
        for index in inspector.get_indexes(table.name, schema=table.schema)
        if not (index.get("dialect_options") or {}).get("postgresql_where")
    )


def _base(kind: Any) -> Any:
    """The type that a domain is made of."""
    return _base(kind.data_type) if isinstance(kind, postgresql.DOMAIN) else kind


def _can_be_id(kind: Any, dialect: str) -> bool:
    if dialect == "sqlite":
        return not isinstance(kind, sa.LargeBinary)  # its columns have no fixed type
    return isinstance(kind, sa.String | sa.Integer | sa.Uuid) and not isinstance(kind, sa.Enum)


def _id_type(kind: Any) -> Any:
    if isinstance(kind, sa.Uuid):
        return uuid.UUID
    if isinstance(kind, sa.Integer):
        return int
    return str
