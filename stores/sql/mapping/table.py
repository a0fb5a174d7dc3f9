"""The session table in SQL: quoted names, and conditions that an index can serve."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from policy.mapping import Column, SessionTable, TimeColumn, TimeEncoding
from stores.model.cutoffs import Cutoffs
from stores.model.sessions import Session
from stores.model.time_encoding import decode_time, encode_bound, zone_of
from stores.sql.dialects import Dialect
from stores.sql.dialects.base import one_of
from stores.sql.mapping.foreign_keys import Reference
from stores.sql.mapping.ids import IdType, id_type


def quoted(name: str) -> sa.quoted_name:
    """The name exactly as given: always quoted, so that no name can be read as SQL."""
    return sa.quoted_name(name, quote=True)


@dataclass(frozen=True)
class TimeExpression:
    """A column that holds a point in time.

    Attributes:
        column: the column.
        mapping: how its times are written.
        dialect: the kind of database.
    """

    column: sa.ColumnClause[Any]
    mapping: TimeColumn
    dialect: Dialect

    @cached_property
    def zone(self) -> tzinfo:
        """The zone of times written without one."""
        naive = self.mapping.encoding is TimeEncoding.NAIVE_TIMESTAMP
        return zone_of(self.mapping.time_zone) if naive else UTC

    @property
    def instant(self) -> sa.ColumnElement[Any]:
        """What can be compared and ordered; NULL where the column holds no point in time."""
        return self.dialect.instant(self.column, self.mapping.encoding)

    @property
    def ordered(self) -> sa.ColumnElement[Any]:
        """What puts times that are known into their order."""
        return self.dialect.ordered(self.column, self.mapping.encoding)

    @property
    def value(self) -> sa.ColumnElement[Any]:
        """What :meth:`decode` reads; NULL for times that Python cannot represent, such as infinity."""
        return self.dialect.readable(self.column, self.mapping.encoding)

    def before(self, moment: datetime) -> sa.ColumnElement[bool]:
        """Whether the stored time lies before the moment; NULL where there is none."""
        return self.dialect.before(self.column, self.mapping.encoding, self.bound(moment))

    def bound(self, moment: datetime) -> Any:
        """What a stored time is compared with; see :func:`encode_bound`."""
        return encode_bound(moment, self.mapping.encoding, self.zone)

    def decode(self, value: Any) -> datetime | None:
        """The point in time a stored value means."""
        return decode_time(value, self.mapping.encoding, self.zone)


@dataclass(frozen=True, eq=False)
class MappedTable:
    """A session table as statements use it.

    Attributes:
        table: names and columns.
        dialect: the kind of database.
        types: types of the columns, as reflected.
        references: foreign keys that point at the table.
        id_index: name of the unique index on the ids; None where it has none, as in a view.
    """

    table: SessionTable
    dialect: Dialect
    types: Mapping[str, sa.types.TypeEngine[Any]]
    references: tuple[Reference, ...] = ()
    id_index: str | None = None

    @cached_property
    def ids(self) -> IdType:
        """How ids are kept."""
        return id_type(self.types[self.table.columns.id.name])

    @cached_property
    def clause(self) -> sa.TableClause:
        """The table, for FROM."""
        columns = self.table.columns
        mapped = (getattr(columns, field) for field in type(columns).model_fields)
        names: dict[str, sa.ColumnClause[Any]] = {c.name: sa.column(quoted(c.name)) for c in mapped if c is not None}
        for name in {name for reference in self.references for name in reference.refers_to}:
            names.setdefault(name, sa.column(quoted(name)))
        names[columns.id.name] = sa.column(quoted(columns.id.name), self.ids.sql)
        schema = self.table.schema
        return sa.table(quoted(self.table.name), *names.values(), schema=quoted(schema) if schema else None)

    @cached_property
    def id(self) -> sa.ColumnElement[Any]:
        """The id column."""
        return self.clause.c[self.table.columns.id.name]

    @cached_property
    def id_length(self) -> sa.ColumnElement[int]:
        """How many characters an id has."""
        return self.dialect.text_length(sa.cast(self.id, sa.Text))

    @cached_property
    def user_id(self) -> sa.ColumnElement[Any] | None:
        """The owner, if mapped; only the same text is the same owner."""
        mapping = self.table.columns.user_id
        if mapping is None:
            return None
        column, kind = self.clause.c[mapping.name], self.types[mapping.name]
        if mapping.path:
            return self.dialect.json_text(column, mapping.path, kind)
        return self.dialect.exact(column, kind)

    def owner_text(self, owner: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """An owner as text, given the column of a query that has :attr:`user_id`."""
        mapping = self.table.columns.user_id
        assert mapping is not None
        return self.dialect.text(owner, sa.Text() if mapping.path else self.types[mapping.name])

    @cached_property
    def has_owner(self) -> sa.ColumnElement[bool]:
        """Whether a session has an owner; never NULL. An empty text is none: it must not make strangers one user."""
        if self.user_id is None:
            return sa.true()
        owner = self.owner_text(self.user_id)
        return sa.and_(owner.is_not(None), owner != "")

    def user_in(self, users: Collection[Any]) -> sa.ColumnElement[bool]:
        """Whether the owner is one of these."""
        mapping, user = self.table.columns.user_id, self.user_id
        assert mapping is not None
        assert user is not None
        listed = one_of(user, users)
        column = self.clause.c[mapping.name]
        # Where owners are compared more strictly than the column's collation does, its index finds candidates first.
        return listed if mapping.path or user is column else sa.and_(one_of(column, users), listed)

    @cached_property
    def client(self) -> sa.ColumnElement[Any] | None:
        """The client that a session began on, as text, if mapped."""
        return self._text(self.table.columns.client)

    @cached_property
    def address(self) -> sa.ColumnElement[Any] | None:
        """The IP address that a session began from, as text, if mapped."""
        return self._text(self.table.columns.address)

    @cached_property
    def revoked(self) -> sa.ColumnElement[bool] | None:
        """Whether the application has flagged or revoked a session, if mapped; NULL where that is not known."""
        mapping = self.table.columns.revoked
        if mapping is None:
            return None
        column, kind = self.clause.c[mapping.name], self.types[mapping.name]
        marked = self.dialect.marked(column, kind)
        # A row without a mark that should have one says nothing.
        return sa.and_(column.is_not(None), sa.not_(marked)) if mapping.inverted else marked

    def _text(self, mapping: Column | None) -> sa.ColumnElement[Any] | None:
        if mapping is None:
            return None
        return self.dialect.text(self.clause.c[mapping.name], self.types[mapping.name])

    @cached_property
    def created_at(self) -> TimeExpression | None:
        """When a session began, if mapped."""
        return self._time(self.table.columns.created_at)

    @cached_property
    def last_accessed_at(self) -> TimeExpression | None:
        """When a session was last used, if mapped."""
        return self._time(self.table.columns.last_accessed_at)

    @cached_property
    def expires_at(self) -> TimeExpression | None:
        """The application's own expiry, if mapped."""
        return self._time(self.table.columns.expires_at)

    def _time(self, mapping: TimeColumn | None) -> TimeExpression | None:
        return TimeExpression(self.clause.c[mapping.name], mapping, self.dialect) if mapping else None

    def idle(self, cutoffs: Cutoffs) -> sa.ColumnElement[bool]:
        """Whether a session has not been used for too long; NULL where that is not known."""
        return self.last_accessed_at.before(cutoffs.idle) if self.last_accessed_at else sa.false()

    def ended(self, cutoffs: Cutoffs) -> sa.ColumnElement[bool]:
        """Whether a session has expired however much it is used; NULL where that is not known."""
        conditions = []
        if self.created_at and cutoffs.absolute:
            conditions.append(self.created_at.before(cutoffs.absolute))
        if self.expires_at:
            conditions.append(self.expires_at.before(cutoffs.expiry))
        return sa.or_(sa.false(), *conditions)

    @cached_property
    def session_columns(self) -> list[sa.ColumnElement[Any]]:
        """What :meth:`session` reads a row from."""
        created, accessed = self.created_at, self.last_accessed_at
        return [
            self.id.label("id"),
            (self.user_id if self.user_id is not None else sa.null()).label("user_id"),
            (created.value if created else sa.null()).label("created_at"),
            (accessed.value if accessed else sa.null()).label("last_accessed_at"),
        ]

    def session(self, row: Any) -> Session:
        """A session from a row of :attr:`session_columns`."""
        return Session(
            id=row[0],
            user_id=row[1],
            created_at=self.created_at.decode(row[2]) if self.created_at and row[2] is not None else None,
            last_accessed_at=(
                self.last_accessed_at.decode(row[3]) if self.last_accessed_at and row[3] is not None else None
            ),
        )

    def id_in(self, ids: Collection[Any]) -> sa.ColumnElement[bool]:
        """Whether the id is one of these."""
        return self.dialect.id_in(self.id, ids)

    def parse_key(self, key: str) -> Any:
        """The id in a Redis key, as a value of the id column; None if the column cannot hold it."""
        return self.ids.parse(key)
