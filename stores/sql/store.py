"""The session table of one run: read in batches, each of which is deleted in a transaction of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from policy.spec import BatchSizing, Cleanup, OnExceed
from stores.model.batches import batches
from stores.model.cutoffs import Cutoffs
from stores.model.key_range import KeyRange, Strategy
from stores.model.session_log import SessionLog
from stores.model.sessions import Candidate, Cause, Deletion, RangeDeletion, Session, SessionTotals
from stores.model.stored_settings import Narrowing
from stores.model.strategy import Choice, TableFacts, choose
from stores.sql.connection.concurrent_writers import ConcurrentWriters
from stores.sql.connection.run_connection import RunConnection
from stores.sql.counting import Counts, count_sessions
from stores.sql.dialects import dialect_of
from stores.sql.dialects.base import TableLayout
from stores.sql.mapping.expiry import expiry
from stores.sql.mapping.ids import normal
from stores.sql.mapping.table import MappedTable, TimeExpression
from stores.sql.owners import OwnerQueries
from stores.sql.removal.bulk_delete import BulkDeletePlan, BulkDeleteRequest, DeletesInBulk
from stores.sql.removal.history import DeletionRecorder
from stores.sql.removal.scans import Scans
from stores.sql.removal.splitting import split_blocks, split_ids
from stores.sql.removal.statements import Removal, delete_over_limit, delete_where, ranked
from stores.sql.removal.transactions import BatchDeleter
from stores.sql.table_statistics import facts_of
from stores.waiting.pacing import Pace
from stores.waiting.retry import Retrier

# Of one transaction. What is deleted is held in memory.
_MIN_SESSIONS, _MAX_SESSIONS = 50, 10_000
# Ids in one answer, where nothing but the id is asked for.
_IDS_PER_PAGE = 5000


class SessionDatabase:
    """Implements :class:`stores.model.sessions.Sessions`, and what the steps need besides.

    Args:
        connection: the connection, with the lock.
        table: the session table.
        cutoffs: before when a session has expired, for the whole run.
        layout: how the table lies on disk.
        cleanup: how fast expired sessions go.
        batch_size: sessions per page and per transaction, to begin with.
        deletion_retrier: patience with batches that fail in a way that may pass.
        grace_seconds: how long ago a session must have been used to count as unused by the Redis synchronisation.
        recorder: counts ended sessions in the transaction that deletes them; None where nothing is kept.
        audit: the log of single deleted sessions; None for none.
        narrowing: the stored settings; None where there are none.
        alone: whether no other worker deletes for the same run.
    """

    def __init__(
        self,
        connection: RunConnection,
        table: MappedTable,
        cutoffs: Cutoffs,
        layout: TableLayout,
        cleanup: Cleanup,
        batch_size: int,
        deletion_retrier: Callable[[tuple[type[BaseException], ...]], Retrier],
        grace_seconds: int,
        recorder: DeletionRecorder | None,
        narrowing: Narrowing | None = None,
        audit: SessionLog | None = None,
        alone: bool = True,
    ) -> None:
        self._connection = connection
        self._table = table
        self._batch_size = batch_size = min(batch_size, table.dialect.max_parameters or batch_size)
        self._deleter = BatchDeleter(connection, table, deletion_retrier, recorder, audit)
        self._recorder = recorder
        self._reports_each = audit is not None and audit.tells_deleted
        self._grace = timedelta(seconds=grace_seconds)
        self._layout = layout
        self._cleanup = cleanup
        self._facts: TableFacts | None = None
        self._counted: int | None = None
        adapts = cleanup.batch_sizing is BatchSizing.ADAPTIVE
        self._pace = Pace(batch_size, min(_MIN_SESSIONS, batch_size), max(_MAX_SESSIONS, batch_size), adapts)
        self._writers = ConcurrentWriters(connection, lambda: self._deleter.written, enabled=adapts and alone)
        self._expiry = expiry(table, cutoffs, narrowing)
        self._expired = self._expiry.expired
        self._live = self._expiry.live
        self._scans = Scans(table, self._expiry, layout, self.fetch, lambda: self._pace.size)
        self.owners = OwnerQueries(table, self._live, self._expiry.allowed, self.fetch)
        """Queries about users."""

    # --- what the rules' queries build on ------------------------------------------------------------------------

    @property
    def table(self) -> MappedTable:
        """The session table."""
        return self._table

    @property
    def live(self) -> sa.ColumnElement[bool]:
        """Whether a session is live."""
        return self._live

    @property
    def batch_size(self) -> int:
        """Sessions per page and per transaction."""
        return self._batch_size

    def fetch(self, query: sa.Executable) -> Sequence[sa.Row[Any]]:
        """All rows of a query that finds few."""
        return self._connection.transaction(lambda connection: connection.execute(query).all())

    def scalars(self, query: sa.Executable) -> Sequence[Any]:
        """The first column of all rows of a query that finds few."""
        return self._connection.transaction(lambda connection: connection.scalars(query).all())

    def read(self, query: sa.Select[Any], key: sa.ColumnElement[Any]) -> Iterator[list[Session]]:
        """The sessions of a query that selects :attr:`MappedTable.session_columns`, a batch at a time."""
        # By key, not by offset: rows that stay (in use, failed) are read once only.
        query = query.where(key.is_not(None)).order_by(key).limit(self._batch_size)
        after: sa.Select[Any] = query
        while page := [self._table.session(row) for row in self.fetch(after)]:
            yield page
            if len(page) < self._batch_size:
                return
            after = query.where(key > sa.literal(page[-1].id, key.type))

    def delete_if(self, sessions: Sequence[Session], condition: sa.ColumnElement[bool], cause: Cause) -> Deletion:
        """Deletes those of the sessions that meet the condition when they are deleted."""
        return self._delete(sessions, lambda ids: delete_where(self._table, ids, condition), cause)

    def delete_ranked(
        self,
        sessions: Sequence[Session],
        ranking: sa.Subquery,
        keep: int,
        changed_by: sa.ColumnElement[Any],
        cause: Cause,
    ) -> Deletion:
        """Deletes those of the sessions that still rank behind those to keep; see :func:`ranked`."""
        return self._delete(sessions, lambda ids: delete_over_limit(self._table, ranking, keep, ids, changed_by), cause)

    # --- reading -------------------------------------------------------------------------------------------------

    def totals(self) -> SessionTotals:
        """Counts all sessions."""
        counts = self.count()
        return SessionTotals(counts.total, counts.expired, self.owners.count_users())

    def count(self, moments: Collection[datetime] = ()) -> Counts:
        """Counts all sessions in one pass, and when they began; see :func:`count_sessions`."""
        self._writers.measure()
        counts = count_sessions(self._table, self._expired, moments, self.fetch)
        self._counted = counts.expired
        return counts

    def live_id_pages(self) -> Iterator[Sequence[Any]]:
        """The ids of all live sessions, many at a time, in their order."""
        key = self._table.id
        query = sa.select(key).where(self._live, key.is_not(None)).order_by(key).limit(_IDS_PER_PAGE)
        page = self.scalars(query)
        while page:
            yield page
            if len(page) < _IDS_PER_PAGE:
                return
            page = self.scalars(query.where(key > sa.literal(page[-1], key.type)))

    def live_sessions(self, ids: Sequence[Any]) -> list[Session]:
        """Those of the sessions that are live."""
        query = sa.select(*self._table.session_columns).where(self._live, self._table.id_in(ids))
        return [self._table.session(row) for row in self.fetch(query)]

    def existing(self, keys: Collection[str]) -> set[str]:
        """Those of the ids, as text, that have a row, live or not."""
        parse = self._table.ids.parse
        ids = {key: parse(key) for key in keys}  # a UUID and a number can be written in several ways
        wanted = set(ids.values()) - {None}
        if not wanted:
            return set()
        found = self._known(wanted)
        if missing := wanted - found:
            # A column that ignores case or trailing blanks answers with the text that it holds. Only the database knows
            # whether it does: the other texts are asked for by themselves.
            similar = {normal(i) for i in found}
            if doubtful := [i for i in missing if normal(i) in similar]:
                same = {normal(i) for i in self._known(doubtful)}
                found |= {i for i in doubtful if normal(i) in same}
        return {key for key, i in ids.items() if i in found}

    def _known(self, ids: Collection[Any]) -> set[Any]:
        return set(self.scalars(sa.select(self._table.id).where(self._table.id_in(ids))))

    # --- the limit per user --------------------------------------------------------------------------------------

    def count_over_limit(self, limit: int, exempt: Collection[str]) -> int:
        """How many live sessions are over their user's limit."""
        return self.owners.count(limit, exempt).over_limit

    def over_limit_pages(self, limit: int, on_exceed: OnExceed, exempt: Collection[str]) -> Iterator[list[Session]]:
        """The live sessions over their user's limit, a batch at a time: those that ``on_exceed`` says should go."""
        if self._table.user_id is None:
            return
        for listed in self.owners.over_limit(limit, exempt):
            for users in batches(listed, self._batch_size):
                ranking = self._ranking(users, limit, on_exceed)
                yield from self.read(sa.select(ranking).where(ranking.c.rank > limit), ranking.c.id)

    def _ranking(self, users: Sequence[Any], limit: int, on_exceed: OnExceed) -> sa.Subquery:
        deciding = self._deciding(on_exceed)
        instant = deciding.instant if deciding else self._table.id
        ordered = instant.asc() if on_exceed is OnExceed.EVICT_NEWEST else instant.desc()
        # A session whose time is not known is the last to go.
        order = [sa.case((instant.is_(None), 0), else_=1), ordered]
        changed_by = deciding.column if deciding else self._table.id
        return ranked(self._table, self._live, users, order, changed_by, limit, self._expiry.allowed)

    def _deciding(self, on_exceed: OnExceed) -> TimeExpression | None:
        if on_exceed in (OnExceed.EVICT_OLDEST, OnExceed.EVICT_NEWEST):
            return self._table.created_at
        # Where applications note no accesses, the session that began first, or will end first, is taken for the one
        # used least recently; a policy that maps its own columns is held to map the access.
        return self._table.last_accessed_at or self._table.created_at or self._table.expires_at

    # --- what has expired ----------------------------------------------------------------------------------------

    def strategy(self) -> Choice:
        """How expired sessions are found, and why.

        Raises:
            ConfigurationError: the policy asks for a strategy that cannot be used here.
        """
        if self._facts is None:
            self._facts = self._connection.transaction(lambda c: facts_of(c, self._table, self._layout, self._expiry))
        return choose(self._cleanup.strategy, replace(self._facts, expired=self._counted))

    def partition(self, count: int) -> list[KeyRange]:
        """Splits the table into about so many key ranges of the same size, which do not overlap, and are all of it.

        One, where splitting is not worth it.
        """
        strategy = self.strategy().strategy
        if strategy is Strategy.PHYSICAL_RANGES:
            return split_blocks(self._layout.blocks or 0, count)
        if strategy is Strategy.ID_ORDER and (self._layout.rows or 0) > count * self._batch_size:
            return split_ids(self._table, self._layout.rows or 0, count, self.fetch)
        return [KeyRange(strategy)]

    def expired_pages(self, key_ranges: Sequence[KeyRange] | None = None) -> Iterator[list[Candidate]]:
        """Expired sessions, a batch at a time."""
        self._writers.measure()
        for key_range in self.partition(1) if key_ranges is None else key_ranges:
            yield from self._scans.pages(key_range)

    def bulk_delete_expired(self, key_ranges: Sequence[KeyRange] | None = None) -> Iterator[RangeDeletion]:
        """Deletes all expired sessions, a range at a time; in one statement each where the database can do that."""
        self._writers.measure()
        for key_range in self.partition(1) if key_ranges is None else key_ranges:
            plan = self._bulk_delete_plan(key_range)
            pages = self._scans.pages(key_range) if plan is None else self._bulk_delete(plan)
            for page in pages:
                if isinstance(page, RangeDeletion):
                    yield page
                else:
                    deletion = self.delete_expired([candidate.session for candidate in page])
                    yield RangeDeletion(deletion.deleted, deletion.failed)

    def _bulk_delete_plan(self, key_range: KeyRange) -> BulkDeletePlan | None:
        """How to delete what has expired in a part of the table in bulk; None where it is to be deleted by ids."""
        dialect = self._table.dialect
        if not self._pace.adapts or not all(reference.cascades for reference in self._table.references):
            return None
        if not isinstance(dialect, DeletesInBulk):
            return None
        return dialect.bulk_delete(
            BulkDeleteRequest(
                self._table,
                self._expiry,
                key_range,
                self._layout,
                expired=self._counted,
                index_entries=lambda: self.strategy().facts.entries_to_read,
                pace=self._pace,
                batch_size=self._batch_size,
                writers_are_busy=self._writers.are_busy,
                connection=self._connection,
                recorder=self._recorder,
                reports_each=self._reports_each,
            )
        )

    def _bulk_delete(self, plan: BulkDeletePlan) -> Iterator[RangeDeletion | list[Candidate]]:
        """What was deleted of each range, or what is to be deleted of it by ids."""
        deletes, pace = plan
        while part := deletes.next(pace.size):
            begun = time.monotonic()
            deletion = self._deleter.delete_range(part, Cause.EXPIRED)
            pace = pace.after(pace.size, time.monotonic() - begun, self._writers.target_seconds())
            if deletion is not None:
                yield deletion
            else:
                yield from self._scans.in_range(part.condition())

    # --- deleting ------------------------------------------------------------------------------------------------

    def delete_expired(self, sessions: Sequence[Session]) -> Deletion:
        """Deletes those of the sessions that are still past their timeout."""
        begun = time.monotonic()
        deletion = self._delete(sessions, lambda ids: delete_where(self._table, ids, self._expired), Cause.EXPIRED)
        self._pace = self._pace.after(len(sessions), time.monotonic() - begun, self._writers.target_seconds())
        return deletion

    def delete_over_limit(self, sessions: Sequence[Session], limit: int, on_exceed: OnExceed) -> Deletion:
        """Deletes those of the sessions that are still over their user's limit."""
        ranking = self._ranking(list(dict.fromkeys(s.user_id for s in sessions)), limit, on_exceed)
        deciding = self._deciding(on_exceed)
        changed_by = deciding.column if deciding else self._table.id
        return self._delete(
            sessions, lambda ids: delete_over_limit(self._table, ranking, limit, ids, changed_by), Cause.EVICTED
        )

    def delete_live(self, sessions: Sequence[Session]) -> Deletion:
        """Deletes live sessions in one transaction, but for any that began or was used within the grace period."""
        moment = datetime.now(UTC) + self.clock_offset() - self._grace
        times = [t for t in (self._table.created_at, self._table.last_accessed_at) if t]
        quiet = sa.and_(sa.true(), *(sa.or_(t.column.is_(None), t.before(moment)) for t in times))
        return self._delete(sessions, lambda ids: delete_where(self._table, ids, quiet), Cause.DESYNCED)

    def clock_offset(self) -> timedelta:
        """How far the database's clock is ahead of this process's."""
        return self._connection.transaction(clock_offset)

    def _delete(self, sessions: Sequence[Session], statement: Callable[[list[Any]], Removal], cause: Cause) -> Deletion:
        return self._deleter.delete_batch(sessions, statement, cause)


def clock_offset(connection: sa.Connection) -> timedelta:
    """How far the database's clock is ahead of this process's; 0 where it has none of its own."""
    before = datetime.now(UTC)
    theirs = dialect_of(connection).now(connection)
    return theirs - (before + (datetime.now(UTC) - before) / 2) if theirs else timedelta(0)
