"""The session table in SQL: quoted names, and conditions that an index can serve."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from job.encoding import decode_time, encode_bound
from job.lifetime import Cutoffs
from job.sessions import Session
from policy.presets import SessionTable
from policy.stores import TimeColumn, TimeEncoding

_CLOCK_TIMES = (TimeEncoding.TIMESTAMP, TimeEncoding.NAIVE_TIMESTAMP)
_BITS = 64
_DATE_GLOB = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"
# Python's calendar, less a few days for time zones.
_CALENDAR = (datetime(1, 1, 3, tzinfo=UTC), datetime(9999, 12, 29, tzinfo=UTC))


def quoted(name: str) -> sa.quoted_name:
    """The name exactly as given: always quoted, so that no name can be read as SQL."""
    return sa.quoted_name(name, quote=True)


def one_of(column: sa.ColumnElement[Any], values: Collection[Any]) -> sa.ColumnElement[bool]:
    """Whether the column has one of these values. A parameter is not named after its column: that may have any name."""
    return column.in_(sa.bindparam("values", list(values), expanding=True, unique=True))


@dataclass(frozen=True)
class TimeExpression:
    """A column that holds a point in time.

    Attributes:
        column: the column.
        mapping: how its times are written.
        dialect: name of the SQL dialect.
    """

    column: sa.ColumnClause[Any]
    mapping: TimeColumn
    dialect: str

    @property
    def instant(self) -> sa.ColumnElement[Any]:
        """What can be compared and ordered; NULL where the column holds no point in time."""
        if self.dialect == "sqlite" and self.mapping.encoding in _CLOCK_TIMES:
            # SQLite has no time type, and applications write text in several forms; its own functions read them all.
            # They also take a bare number for a day, and a time of day for one in the year 2000: no times to us.
            return sa.case(
                (self.column.op("GLOB", return_type=sa.Boolean())(_DATE_GLOB), sa.func.julianday(self.column))
            )
        return self.column

    @property
    def value(self) -> sa.ColumnElement[Any]:
        """What :meth:`decode` reads; NULL for times that Python cannot tell, such as PostgreSQL's infinity."""
        if self.dialect == "postgresql" and self.mapping.encoding in _CLOCK_TIMES:
            zoned = self.mapping.encoding is TimeEncoding.TIMESTAMP
            first, last = ((sa.literal(t if zoned else t.replace(tzinfo=None), sa.DateTime(zoned))) for t in _CALENDAR)
            return sa.case((self.column.between(first, last), self.column))
        return self.column

    def before(self, moment: datetime) -> sa.ColumnElement[bool]:
        """Whether the stored time lies before the moment; NULL where there is none."""
        bound = encode_bound(moment, self.mapping.encoding, ZoneInfo(self.mapping.time_zone))
        if self.mapping.encoding not in _CLOCK_TIMES:
            return self.column < sa.literal(bound)
        if self.dialect == "sqlite":
            return self.instant < sa.func.julianday(str(bound))
        return self.column < sa.literal(bound, sa.DateTime(timezone=self.mapping.encoding is TimeEncoding.TIMESTAMP))

    def decode(self, value: Any) -> datetime | None:
        """The point in time a stored value means."""
        return decode_time(value, self.mapping.encoding, ZoneInfo(self.mapping.time_zone))


@dataclass(frozen=True)
class MappedTable:
    """A session table as statements use it.

    Attributes:
        table: names and columns.
        dialect: name of the SQL dialect.
        id_type: Python type of the id column's values: str, int or uuid.UUID.
        is_padded: whether the id column is of a fixed length and filled up with blanks, which are not part of an id.
    """

    table: SessionTable
    dialect: str
    id_type: type[str] | type[int] | type[uuid.UUID]
    is_padded: bool = False

    @cached_property
    def clause(self) -> sa.TableClause:
        """The table, for FROM."""
        columns = self.table.columns
        names: dict[str, sa.ColumnClause[Any]] = {
            c.name: sa.column(quoted(c.name))
            for c in (
                columns.id,
                columns.user_id,
                columns.created_at,
                columns.last_accessed_at,
                columns.expires_at,
            )
            if c is not None
        }
        schema = self.table.schema
        return sa.table(quoted(self.table.name), *names.values(), schema=quoted(schema) if schema else None)

    @cached_property
    def id(self) -> sa.ColumnElement[Any]:
        """The id column."""
        return self.clause.c[self.table.columns.id.name]

    @cached_property
    def user_id(self) -> sa.ColumnElement[Any] | None:
        """The owner's column, if mapped."""
        column = self.table.columns.user_id
        return self.clause.c[column.name] if column else None

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

    def expired(self, cutoffs: Cutoffs) -> sa.ColumnElement[bool]:
        """Whether a session has expired, for whatever reason; NULL where nothing says so."""
        return sa.or_(self.idle(cutoffs), self.ended(cutoffs))

    def live(self, cutoffs: Cutoffs) -> sa.ColumnElement[bool]:
        """Whether a session is live. What is not known to have expired is."""
        return self.expired(cutoffs).is_not(sa.true())

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
            id=self.unpadded(row[0]),
            user_id=row[1],
            created_at=self.created_at.decode(row[2]) if self.created_at and row[2] is not None else None,
            last_accessed_at=(
                self.last_accessed_at.decode(row[3]) if self.last_accessed_at and row[3] is not None else None
            ),
        )

    def id_in(self, ids: Collection[Any]) -> sa.ColumnElement[bool]:
        """Whether the id is one of these."""
        if self.dialect == "postgresql":
            # One array parameter: the statement stays the same for every batch size.
            return self.id == sa.any_(sa.literal(list(ids), sa.ARRAY(_SQL_TYPES[self.id_type])))
        return one_of(self.id, ids)

    def unpadded(self, value: Any) -> Any:
        """A value of the id column without the blanks that only fill it up."""
        return value.rstrip(" ") if self.is_padded else value

    def normal(self, session_id: Any) -> Any:
        """The id in one form of those that the database may hold equal: it may ignore case and trailing blanks.

        Two ids may share a form and still be two; that is for callers who only need to know that an id is not unknown.
        """
        return session_id.rstrip(" ").casefold() if isinstance(session_id, str) else session_id

    def parse_key(self, key: str) -> Any:
        """The id that a Redis key spells, as a value of the id column; None if the column cannot hold it."""
        if self.id_type is str:
            return None if "\0" in key else key  # PostgreSQL's text cannot hold a NUL character
        try:
            value = self.id_type(key)
        except ValueError:
            return None
        return None if isinstance(value, int) and value.bit_length() >= _BITS else value


_SQL_TYPES: dict[type, sa.types.TypeEngine[Any]] = {
    str: sa.Text(),
    int: sa.BigInteger(),
    uuid.UUID: sa.Uuid(as_uuid=True),
}
