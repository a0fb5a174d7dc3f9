"""Reads the expired sessions of a table a page at a time, in the order of a strategy. Locks nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from stores.model.key_range import KeyRange, Strategy
from stores.model.sessions import Candidate
from stores.sql.dialects.base import TableLayout
from stores.sql.mapping.expiry import Expiry, IndexBound
from stores.sql.mapping.table import MappedTable

Fetch = Callable[[sa.Select[Any]], Sequence[sa.Row[Any]]]


class Scans:
    """Reads the expired sessions of a table in pages. A session that stays is read once only.

    Args:
        table: the session table.
        expiry: what has expired.
        layout: how the table lies on disk.
        fetch: runs a query in a transaction of its own.
        page_size: how many sessions the next page is to have at most.
    """

    def __init__(
        self, table: MappedTable, expiry: Expiry, layout: TableLayout, fetch: Fetch, page_size: Callable[[], int]
    ) -> None:
        self._table = table
        self._expiry = expiry
        self._layout = layout
        self._fetch = fetch
        self._page_size = page_size
        self._cutoffs = [each.cutoff for each in expiry.idle_classes]
        idle = [(each.condition, sa.literal(n)) for n, each in enumerate(expiry.idle_classes)]
        self._columns = [*table.session_columns, sa.case(*idle).label("idle_class")]

    def pages(self, key_range: KeyRange) -> Iterator[list[Candidate]]:
        """What has expired in a part of the table."""
        if key_range.strategy is Strategy.EXPIRY_INDEX:
            return self._by_index()
        if key_range.strategy is Strategy.PHYSICAL_RANGES:
            return self._by_blocks(key_range)
        return self._by_id(key_range)

    def in_range(self, condition: sa.ColumnElement[bool]) -> Iterator[list[Candidate]]:
        """What has expired in a range of rows that are few enough to be read at once."""
        found = [self._candidate(row) for row in self._fetch(self._query(condition))]
        while found:
            size = self._page_size()
            yield found[:size]
            found = found[size:]

    def _by_blocks(self, key_range: KeyRange) -> Iterator[list[Candidate]]:
        for condition in self._table.dialect.block_ranges(key_range, self._layout):
            yield from self.in_range(condition)

    def _by_id(self, key_range: KeyRange) -> Iterator[list[Candidate]]:
        key = self._table.id
        query = self._query(within_ids(self._table, key_range)).order_by(key)
        after: sa.Select[Any] = query
        while True:
            size = self._page_size()
            page = [self._candidate(row) for row in self._fetch(after.limit(size))]
            if page:
                yield page
            if len(page) < size:
                return
            after = query.where(key > sa.literal(page[-1].session.id, key.type))

    def _by_index(self) -> Iterator[list[Candidate]]:
        earlier: list[IndexBound] = []
        for bound in self._expiry.index_bounds:
            # What an earlier index led to was dealt with.
            new = sa.and_(bound.condition, *(each.condition.is_not(sa.true()) for each in earlier))
            yield from self._before(bound, new)
            earlier.append(bound)

    def _before(self, bound: IndexBound, condition: sa.ColumnElement[bool]) -> Iterator[list[Candidate]]:
        table, column, key = self._table, bound.time.column, self._table.id
        position = table.dialect.keyset_value(column).label("position")
        query = self._query(condition).add_columns(position).order_by(column, key)
        query = table.dialect.by_index(query, table.clause, self._layout.indexes[bound.time.mapping.name])
        after: sa.Select[Any] = query
        while True:
            size = self._page_size()
            rows = self._fetch(after.limit(size))
            if rows:
                yield [self._candidate(row) for row in rows]
            if len(rows) < size:
                return
            # Not from the beginning: entries of rows that were just deleted stay in an index for a while.
            at = table.dialect.keyset_literal(rows[-1].position, table.types[bound.time.mapping.name])
            last = sa.literal(rows[-1].id, key.type)
            after = query.where(column >= at, sa.or_(column > at, key > last))

    def _query(self, condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
        return sa.select(*self._columns).where(condition, self._expiry.expired, self._table.id.is_not(None))

    def _candidate(self, row: sa.Row[Any]) -> Candidate:
        idle_class = row.idle_class
        return Candidate(self._table.session(row), None if idle_class is None else self._cutoffs[idle_class])


def within_ids(table: MappedTable, key_range: KeyRange) -> sa.ColumnElement[bool]:
    """Whether a row's id lies in a range."""
    bounds = []
    if key_range.after is not None:
        bounds.append(table.id > sa.literal(table.parse_key(str(key_range.after)), table.id.type))
    if key_range.up_to is not None:
        bounds.append(table.id <= sa.literal(table.parse_key(str(key_range.up_to)), table.id.type))
    return sa.and_(sa.true(), *bounds)
