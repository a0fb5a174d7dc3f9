"""Very many deleted rows: kept as the driver returned them, and made into sessions only where one is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, timedelta
from functools import cached_property
from typing import Any, overload

import sqlalchemy as sa

from policy.mapping import TimeEncoding
from stores.model.sessions import LogFields, Session
from stores.model.time_encoding import decode_time, zone_of
from stores.model.timestamps import format_utc, utc_formatter
from stores.sql.dialects.base import CLOCK_TIMES
from stores.sql.mapping.table import MappedTable, TimeExpression

_PER_SECOND = {
    TimeEncoding.TIMESTAMP: 1_000_000,
    TimeEncoding.EPOCH_SECONDS: 1,
    TimeEncoding.EPOCH_MILLISECONDS: 1000,
}


# A thousand years: what seems to last longer has a time outside any calendar.
LONGEST_SECONDS = 1000 * 366 * 24 * 3600


class CompactColumns:
    """What to select of a session table so that reading very many rows costs little.

    Args:
        table: the session table.
        dialect: of the connection that returns the rows.
    """

    def __init__(self, table: MappedTable, dialect: sa.Dialect) -> None:
        self._table = table
        self._created, self._accessed = table.created_at, table.last_accessed_at
        self._id: Callable[[Any], Any] | None = table.ids.sql.dialect_impl(dialect).result_processor(dialect, None)
        self._per_second = units_per_second(table)
        self._epoch = table.dialect.compact_epoch.replace(tzinfo=UTC)
        self._format = utc_formatter(self._epoch)

    @cached_property
    def columns(self) -> list[sa.ColumnElement[Any]]:
        """The columns to select."""
        table, user = self._table, self._table.user_id
        if user is not None and not _is_plain(table):
            user = sa.cast(user, sa.Text)
        key = table.id
        kind = table.types[table.table.columns.id.name]
        if isinstance(kind, sa.String) and not table.dialect.reads_in_bulk(kind):
            key = sa.cast(key, sa.Text)
        return [
            key.label("id"),
            (user if user is not None else sa.null()).label("user_id"),
            self._time(self._created).label("created_at"),
            self._time(self._accessed).label("last_accessed_at"),
        ]

    def id(self, row: Sequence[Any]) -> Any:
        """The id in a row."""
        return self._id(row[0]) if self._id else row[0]

    def session(self, row: Sequence[Any]) -> Session:
        """The session in a row."""
        created, accessed = self._moment(self._created, row[2]), self._moment(self._accessed, row[3])
        return Session(self.id(row), row[1], created, accessed)

    def durations(self, rows: Sequence[Sequence[Any]]) -> list[float | None]:
        """For how many seconds each session was in use; None where that is not known."""
        if unit := self._per_second:
            most = LONGEST_SECONDS * unit
            return [
                None
                if r[2] is None or r[3] is None or not -most < r[3] - r[2] < most
                else max(0.0, (r[3] - r[2]) / unit)
                for r in rows
            ]
        return [self.session(row).seconds for row in rows]

    def log_fields(self, rows: Iterable[Sequence[Any]]) -> Iterator[LogFields]:
        """Id, owner and both times of each, as logs have them."""
        key, created, accessed = self._id, self._formatter(self._created), self._formatter(self._accessed)
        return ((key(r[0]) if key else r[0], r[1], created(r[2]), accessed(r[3])) for r in rows)

    def _formatter(self, time: TimeExpression | None) -> Callable[[Any], str | None]:
        utc = self._format if time and time.mapping.encoding in CLOCK_TIMES and _is_utc(time) else None

        def formatted(value: Any) -> str | None:
            if utc is not None and type(value) is int:
                return utc(value)
            moment = self._moment(time, value)
            return None if moment is None else format_utc(moment)

        return formatted

    def _time(self, time: TimeExpression | None) -> sa.ColumnElement[Any]:
        if time is None:
            return sa.null()
        if time.mapping.encoding in CLOCK_TIMES:
            return self._table.dialect.compact_time(time.column, time.mapping.encoding)
        return time.value

    def _moment(self, time: TimeExpression | None, value: Any) -> Any:
        if time is None or value is None:
            return None
        encoding = time.mapping.encoding
        if encoding in CLOCK_TIMES:
            try:
                moment = self._epoch + timedelta(microseconds=value)
            except OverflowError:
                return None
            return moment if time.zone is UTC else decode_time(moment.replace(tzinfo=None), encoding, time.zone)
        return time.decode(value)


class CompactRows(Sequence[Session]):
    """Deleted sessions, as rows of :attr:`CompactColumns.columns`.

    Args:
        count: how many.
        fetch: has the driver make the rows of what the server sent; called once, if at all, from any thread.
        columns: what the rows hold.
    """

    def __init__(self, count: int, fetch: Callable[[], Sequence[Sequence[Any]]], columns: CompactColumns) -> None:
        self._count = count
        self._fetch = fetch
        self._columns = columns

    @cached_property
    def _rows(self) -> Sequence[Sequence[Any]]:
        return self._fetch() if self._count else ()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Session: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Session]: ...
    def __getitem__(self, index: int | slice) -> Session | Sequence[Session]:
        if isinstance(index, slice):
            rows = self._rows[index]
            return CompactRows(len(rows), lambda: rows, self._columns)
        return self._columns.session(self._rows[index])

    def __iter__(self) -> Iterator[Session]:
        return map(self._columns.session, self._rows)

    def log_fields(self) -> Iterator[LogFields]:
        """What logs have of each; see :class:`stores.model.sessions.HasLogFields`."""
        return self._columns.log_fields(self._rows)

    @property
    def ids(self) -> list[Any]:
        """The ids of all."""
        return list(map(self._columns.id, self._rows))

    @property
    def users(self) -> list[Any]:
        """The users of all; None for a session without an owner."""
        return [row[1] for row in self._rows]

    @cached_property
    def durations(self) -> list[float | None]:
        """For how many seconds each was in use; None where that is not known."""
        return self._columns.durations(self._rows)


def units_per_second(table: MappedTable) -> int | None:
    """How many units of the two times are a second; None where they are no whole numbers of one unit."""
    created, accessed = table.created_at, table.last_accessed_at
    if created is None or accessed is None:
        return None
    encoding = created.mapping.encoding
    if encoding is not accessed.mapping.encoding or encoding not in _PER_SECOND:
        return None
    whole = all(isinstance(table.types[time.mapping.name], sa.Integer) for time in (created, accessed))
    return _PER_SECOND[encoding] if whole or encoding is TimeEncoding.TIMESTAMP else None


def _is_utc(time: TimeExpression) -> bool:
    return time.zone in (UTC, zone_of("UTC"))


def _is_plain(table: MappedTable) -> bool:
    """Whether the driver can read the column of the owners as it is."""
    mapping = table.table.columns.user_id
    assert mapping is not None
    return bool(mapping.path) or table.dialect.reads_in_bulk(table.types[mapping.name])
