"""Checks of the session table before a run: what refuses the run, and what its owner should know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from policy.mapping import Column, Columns, SessionTable, TimeColumn, UserColumn
from stores.model.errors import ConfigurationError
from stores.sql.dialects import Dialect, dialect_of
from stores.sql.mapping.findings import Finding, Severity
from stores.sql.mapping.foreign_keys import Reference, has_index, references
from stores.sql.mapping.ids import id_problem
from stores.sql.mapping.table import MappedTable
from stores.sql.mapping.zones import implausible, resolve

_TABLE = "stores.database.table"
_NO_TABLE = Finding(
    Severity.ERROR,
    "name",
    "there is no such table or view in the database",
    "`session-policy init` creates the default one, otherwise name yours",
)


@dataclass(frozen=True, slots=True)
class Preflight:
    """The result of the checks.

    Attributes:
        name: of the table, for messages.
        mapped: the table ready for use; None where it cannot be used.
        findings: in the order in which they matter.
    """

    name: str
    mapped: MappedTable | None
    findings: list[Finding] = field(default_factory=list)

    def require(self) -> MappedTable:
        """The table ready for use.

        Raises:
            ConfigurationError: something refuses a run. The message lists every problem at once.
        """
        errors = [str(f) for f in self.findings if f.severity is Severity.ERROR]
        if errors or self.mapped is None:
            raise ConfigurationError(f"{_TABLE} {self.name}: " + "; ".join(errors))
        return self.mapped


def examine(inspector: sa.Inspector, table: SessionTable) -> Preflight:
    """Checks the table, its columns, its indexes and the foreign keys that refer to it. Changes nothing.

    Args:
        inspector: bound to a connection.
        table: as the policy maps it.
    """
    connection = inspector.bind
    assert isinstance(connection, sa.Connection)
    dialect = dialect_of(connection)
    table = _with_its_name(inspector, table)
    name = ".".join(repr(part) for part in (table.schema, table.name) if part)
    reflected = _columns(inspector, table)
    if not reflected:
        return Preflight(name, None, [_NO_TABLE])
    table = _with_column_names(table, reflected)
    types = {column: described["type"] for column, described in reflected.items()}
    findings = list(_column_problems(table, types, dialect))
    table, zone_problems = _with_zones(table, connection)
    findings += zone_problems
    id_index = None
    if not findings:
        unique, id_index = _unique_index(inspector, table)
        findings += [] if unique else [_not_unique(table)]
    if problem := dialect.table_problem(connection, table.schema, table.name):
        findings.append(Finding(Severity.ERROR, "name", problem))
    if findings:
        return Preflight(name, None, findings)
    referring, to_itself = references(inspector, table.schema, table.name)
    mapped = MappedTable(table, dialect, types, tuple(referring), id_index)
    findings += implausible(mapped, connection)
    findings += _missing_indexes(inspector, mapped, connection)
    findings += _about_references(mapped, referring, to_itself, connection)
    findings += _nullable(mapped, reflected)
    return Preflight(name, mapped, findings)


# --- names -----------------------------------------------------------------------------------------------------------


def _with_its_name(inspector: sa.Inspector, table: SessionTable) -> SessionTable:
    """The table under its name in the database, where a preset leaves upper and lower case to that."""
    if table.case_sensitive:
        return table
    names = [*inspector.get_table_names(schema=table.schema), *inspector.get_view_names(schema=table.schema)]
    return replace(table, name=_actual_name(table.name, names))


def _with_column_names(table: SessionTable, reflected: Mapping[str, Any]) -> SessionTable:
    if table.case_sensitive:
        return table
    changes = {
        name: column.model_copy(update={"name": _actual_name(column.name, list(reflected))})
        for name, column in _fields(table.columns)
    }
    return replace(table, columns=table.columns.model_copy(update=changes))


def _actual_name(name: str, names: list[str]) -> str:
    alike = [n for n in names if n.lower() == name.lower()]
    return name if name in names or len(alike) != 1 else alike[0]


def _fields(columns: Columns) -> Iterator[tuple[str, Column]]:
    for name in type(columns).model_fields:
        column = getattr(columns, name)
        if column is not None:
            yield name, column


def _columns(inspector: sa.Inspector, table: SessionTable) -> dict[str, Any]:
    """The table's columns by name; none where there is no such table."""
    if table.schema and table.schema not in inspector.get_schema_names():
        return {}
    base_type = dialect_of(inspector).base_type
    try:
        found = inspector.get_columns(table.name, schema=table.schema)
    except sa.exc.NoSuchTableError:
        return {}
    return {c["name"]: {**c, "type": base_type(c["type"])} for c in found}


# --- columns ---------------------------------------------------------------------------------------------------------


def _column_problems(table: SessionTable, types: Mapping[str, Any], dialect: Dialect) -> Iterator[Finding]:
    for name, column in _fields(table.columns):
        where = f"columns.{type(table.columns).model_fields[name].alias or name}"
        if column.name not in types:
            known = ", ".join(repr(each) for each in list(types)[:20])
            yield Finding(Severity.ERROR, where, f"there is no column {column.name!r}", f"the table has {known}")
            continue
        kind = types[column.name]
        problem = None
        if isinstance(column, TimeColumn):
            problem = dialect.time_problem(kind, column.encoding)
        elif name == "id" and dialect.has_column_types:
            problem = id_problem(kind)
        elif isinstance(column, UserColumn) and column.path:
            problem = dialect.json_problem(kind, column.path)
        if problem:
            yield Finding(Severity.ERROR, where, f"{column.name!r} is of type {kind}; {problem}")


def _with_zones(table: SessionTable, connection: sa.Connection) -> tuple[SessionTable, list[Finding]]:
    changes: dict[str, TimeColumn] = {}
    problems: list[Finding] = []
    for name, column in _fields(table.columns):
        if isinstance(column, TimeColumn):
            resolved = resolve(type(table.columns).model_fields[name].alias or name, column, connection)
            if isinstance(resolved, Finding):
                problems.append(resolved)
            else:
                changes[name] = resolved
    return replace(table, columns=table.columns.model_copy(update=changes)), problems


def _unique_index(inspector: sa.Inspector, table: SessionTable) -> tuple[bool, str | None]:
    """Whether the ids are unique, and the name of the index that makes them so, where it has one."""
    wanted = [table.columns.id.name]
    if inspector.get_pk_constraint(table.name, schema=table.schema).get("constrained_columns") == wanted:
        return True, dialect_of(inspector).primary_key_index
    for unique in inspector.get_unique_constraints(table.name, schema=table.schema):
        if unique["column_names"] == wanted:
            return True, unique["name"]
    for index in inspector.get_indexes(table.name, schema=table.schema, **dialect_of(inspector).index_options):
        partial = any(key.endswith("_where") for key in index.get("dialect_options") or {})
        if index["unique"] and index["column_names"] == wanted and not partial:
            return True, index["name"]
    return False, None


def _not_unique(table: SessionTable) -> Finding:
    return Finding(
        Severity.ERROR,
        "columns.id",
        f"{table.columns.id.name!r} has no primary key or unique index of its own",
        "without one, two sessions may have the same id; add a unique index",
    )


def _nullable(table: MappedTable, reflected: Mapping[str, Any]) -> Iterator[Finding]:
    for name, time in (("lastAccessedAt", table.last_accessed_at), ("expiresAt", table.expires_at)):
        if time and reflected[time.mapping.name]["nullable"]:
            yield Finding(
                Severity.INFO,
                f"columns.{name}",
                f"{time.mapping.name!r} may be NULL; such a row never expires by it",
                "make it NOT NULL if every session should",
            )


# --- indexes and foreign keys ----------------------------------------------------------------------------------------


def _missing_indexes(inspector: sa.Inspector, table: MappedTable, connection: sa.Connection) -> Iterator[Finding]:
    if table.table.name in inspector.get_view_names(schema=table.table.schema):
        return
    times = (("expiresAt", table.expires_at), ("lastAccessedAt", table.last_accessed_at))
    for name, time in times:
        if time and not has_index(inspector, table.table.schema, table.table.name, [time.mapping.name]):
            yield Finding(
                Severity.WARNING,
                f"columns.{name}",
                f"no index begins with {time.mapping.name!r}: each run reads the whole table",
                _ddl(table, connection, table.table.schema, table.table.name, [time.mapping.name]),
            )


def _about_references(
    table: MappedTable, referring: list[Reference], to_itself: bool, connection: sa.Connection
) -> Iterator[Finding]:
    for reference in referring:
        where = ".".join(repr(part) for part in (reference.schema, reference.table) if part)
        columns = ", ".join(map(repr, reference.columns))
        if not reference.indexed:
            yield Finding(
                Severity.WARNING,
                "name",
                f"table {where} refers to sessions by {columns}, which has no index: each deletion reads that table",
                _ddl(table, connection, reference.schema, reference.table, reference.columns),
            )
        if not reference.cascades:
            what = "are kept, and set to NULL" if reference.optional else "are deleted with it"
            yield Finding(
                Severity.INFO,
                "name",
                f"rows of table {where} that refer to a session by {columns} {what}",
                "say otherwise with ON DELETE in the foreign key",
            )
    if to_itself:
        yield Finding(
            Severity.WARNING,
            "name",
            "sessions refer to sessions: one that another one refers to cannot be deleted",
            "say in the foreign key what should happen ON DELETE",
        )


def _ddl(
    table: MappedTable, connection: sa.Connection, schema: str | None, name: str, columns: list[str] | tuple[str, ...]
) -> str:
    return table.dialect.create_index(connection, schema, name, columns)
