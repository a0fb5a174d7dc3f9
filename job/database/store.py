"""The session table of one run: reading a batch at a time, deleting a batch per transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from job.database.connect import is_refusal, is_transient
from job.database.dialects import dialect_of
from job.database.history import HistoryTable
from job.database.ids import normal
from job.database.link import Link
from job.database.narrowing import expiry, subjects
from job.database.statements import Removal, delete_over_limit, delete_where, ranked, remove
from job.database.table import MappedTable, TimeExpression
from job.lifetime import Cutoffs
from job.logs import SessionLog
from job.retry import Retrier
from job.sessions import Cause, Census, Deletion, Session
from job.settings import Narrowing, Scope
from policy.spec import OnExceed


class _BatchFailedError(Exception):
    """A batch of deletions failed in a way that may pass."""


class SessionDatabase:
    """Implements :class:`job.sessions.Sessions`, and what the steps need besides.

    Args:
        link: the connection, with the lock.
        table: the session table.
        cutoffs: before when a session has expired, for the whole run.
        batch_size: sessions per page and per transaction.
        deletion_retrier: patience with batches that fail in a way that may pass.
        grace_seconds: how long ago a session must have been used to count as unused by the Redis synchronisation.
        history: where ended sessions are counted; None where nothing is kept.
        audit: the log of single deleted sessions; None for none.
        narrowing: the stored settings; None where there are none.
    """

    def __init__(
        self,
        link: Link,
        table: MappedTable,
        cutoffs: Cutoffs,
        batch_size: int,
        deletion_retrier: Callable[[tuple[type[BaseException], ...]], Retrier],
        grace_seconds: int,
        history: HistoryTable | None,
        narrowing: Narrowing | None = None,
        audit: SessionLog | None = None,
    ) -> None:
        self._link = link
        self._table = table
        self._batch_size = batch_size
        self._retry_deletion = deletion_retrier((_BatchFailedError,))
        self._grace = timedelta(seconds=grace_seconds)
        self._history = history
        self._audit = audit
        self._expiry = expiry(table, cutoffs, narrowing)
        self._expired = self._expiry.expired
        self._live = self._expiry.live

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
        return self._fetch(query)

    def read(self, query: sa.Select[Any], key: sa.ColumnElement[Any]) -> Iterator[list[Session]]:
        """The sessions of a query that selects :attr:`MappedTable.session_columns`, a batch at a time."""
        return self._read(query, key)

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

    def census(self) -> Census:
        """Counts all sessions."""
        one: sa.ColumnClause[Any] = sa.literal_column("1")
        user = self._table.user_id
        users = sa.func.count(sa.distinct(sa.case((self._live, user)))) if user is not None else sa.literal_column("0")
        query = sa.select(sa.func.count(), sa.func.count(sa.case((self._expired, one))), users).select_from(
            self._table.clause
        )
        row: Sequence[int] = tuple(self._fetch(query)[0])
        return Census(total=row[0], expired=row[1], users=row[2])

    def ended_pages(self) -> Iterator[list[Session]]:
        """Sessions past their absolute timeout or the application's own expiry, a batch at a time."""
        return self._pages(self._expiry.ended)

    def idle_pages(self) -> Iterator[tuple[datetime, list[Session]]]:
        """Sessions past their idle timeout and nothing else, a batch at a time; with when they must have been used."""
        for each in self._expiry.idle_classes:
            for page in self._pages(each.condition):
                yield each.cutoff, page

    def live_pages(self) -> Iterator[list[Session]]:
        """All live sessions, a batch at a time, in the order of their ids."""
        return self._pages(self._live)

    def _pages(self, condition: sa.ColumnElement[bool]) -> Iterator[list[Session]]:
        return self._read(sa.select(*self._table.session_columns).where(condition), self._table.id)

    def _read(self, query: sa.Select[Any], key: sa.ColumnElement[Any]) -> Iterator[list[Session]]:
        # By key, not by offset: rows that stay (in use, failed) are met once and never in the way again.
        query = query.where(key.is_not(None)).order_by(key).limit(self._batch_size)
        after: sa.Select[Any] = query
        while page := [self._table.session(row) for row in self._fetch(after)]:
            yield page
            if len(page) < self._batch_size:
                return
            after = query.where(key > sa.literal(page[-1].id, key.type))

    def existing(self, keys: Collection[str]) -> set[str]:
        """Those of the ids, spelt as in Redis, that have a row, live or not."""
        by_id: defaultdict[Any, list[str]] = defaultdict(list)  # a UUID and a number can be spelt in several ways
        for key in keys:
            by_id[self._table.parse_key(key)].append(key)
        by_id.pop(None, None)
        if not by_id:
            return set()
        found = self._known(by_id.keys())
        # A column that ignores case or trailing blanks answers with its own spelling. Whether it does, only it can
        # tell: the other spellings are asked for alone.
        similar = {normal(i) for i in found}
        doubtful = [i for i in by_id if i not in found and normal(i) in similar]
        same = {normal(i) for i in self._known(doubtful)} if doubtful else set()
        return {key for i, keys in by_id.items() if i in found or normal(i) in same for key in keys}

    def _known(self, ids: Collection[Any]) -> set[Any]:
        query = sa.select(self._table.id).where(self._table.id_in(ids))
        return {row[0] for row in self._fetch(query)}

    def _fetch(self, query: sa.Executable) -> Sequence[sa.Row[Any]]:
        return self._link.transaction(lambda connection: connection.execute(query).all())

    # --- the limit per user --------------------------------------------------------------------------------------

    def count_over_limit(self, limit: int, exempt: Collection[str]) -> int:
        """How many live sessions are over their user's limit."""
        if self._table.user_id is None:
            return 0
        excess = sa.func.count() - self._allowed(limit)
        per_user = self._per_user(limit, exempt).add_columns(excess.label("excess")).subquery()
        query = sa.select(sa.func.coalesce(sa.func.sum(per_user.c.excess), 0))
        return int(self._link.transaction(lambda c: c.scalar(query)) or 0)

    def over_limit_pages(self, limit: int, on_exceed: OnExceed, exempt: Collection[str]) -> Iterator[list[Session]]:
        """The live sessions over their user's limit, a batch at a time: those that ``on_exceed`` says should go."""
        user = self._table.user_id
        if user is None:
            return
        query = self._per_user(limit, exempt).order_by(user).limit(self._batch_size)
        after: sa.Select[Any] = query
        while users := [row[0] for row in self._fetch(after)]:
            ranking = self._ranking(users, limit, on_exceed)
            yield from self._read(sa.select(ranking).where(ranking.c.rank > limit), ranking.c.id)
            if len(users) < self._batch_size:
                return
            after = query.where(user > sa.literal(users[-1]))

    def _per_user(self, limit: int, exempt: Collection[str]) -> sa.Select[Any]:
        user = self._table.user_id
        assert user is not None
        # An empty text is no owner: strangers must not share one limit.
        owner = subjects(self._table)[Scope.USER]
        query = sa.select(user).where(self._live, user.is_not(None), owner != "").group_by(user)
        query = query.having(sa.func.count() > self._allowed(limit))
        return query.where(sa.cast(user, sa.Text).not_in(sorted(exempt))) if exempt else query

    def _allowed(self, limit: int) -> Any:
        """How many sessions the users of a group may have: the smallest number that any of their sessions says."""
        return limit if self._expiry.allowed is None else sa.func.min(self._expiry.allowed)

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

    # --- deleting ------------------------------------------------------------------------------------------------

    def delete_expired(self, sessions: Sequence[Session]) -> Deletion:
        """Deletes those of the sessions that are still past their timeout."""
        return self._delete(sessions, lambda ids: delete_where(self._table, ids, self._expired), Cause.EXPIRED)

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
        return self._link.transaction(clock_offset)

    def _delete(self, sessions: Sequence[Session], statement: Callable[[list[Any]], Removal], cause: Cause) -> Deletion:
        """One batch; halved where a single row is the trouble, so that the others still go."""
        if not sessions:
            return Deletion()
        attempted: list[Session] = []

        def work(connection: sa.Connection) -> list[Session]:
            nonlocal attempted
            if attempted and not self._any_exists(connection, attempted):
                return attempted  # the commit had gone through; only the answer to it was lost
            rows = remove(connection, self._table, statement([s.id for s in sessions]))
            attempted = [self._table.session(row) for row in rows]
            if self._history:
                self._history.add(connection, attempted, cause)
            return attempted

        def attempt() -> list[Session]:
            try:
                return self._link.transaction(work, retry_transient=False)
            except sa.exc.DBAPIError as error:
                attempted.clear()  # rolled back for certain: the connection is still there
                if is_transient(error):
                    raise _BatchFailedError from error
                raise

        try:
            deleted = self._retry_deletion(attempt)
            if self._audit:
                self._audit.deleted(deleted, cause.value)
            return Deletion(deleted)
        except _BatchFailedError:
            return Deletion(failed=len(sessions))
        except sa.exc.DBAPIError as error:
            if not is_refusal(error):
                raise
            if len(sessions) == 1:
                return Deletion(failed=1)
            half = len(sessions) // 2
            first, second = (self._delete(part, statement, cause) for part in (sessions[:half], sessions[half:]))
            return Deletion(first.deleted + second.deleted, first.failed + second.failed)

    def _any_exists(self, connection: sa.Connection, sessions: Sequence[Session]) -> bool:
        query = sa.select(sa.literal(1)).where(self._table.id_in([s.id for s in sessions])).limit(1)
        return connection.execute(query).first() is not None


def clock_offset(connection: sa.Connection) -> timedelta:
    """How far the database's clock is ahead of this process's; SQLite has only ours."""
    before = datetime.now(UTC)
    theirs = dialect_of(connection).now(connection)
    return theirs - (before + (datetime.now(UTC) - before) / 2) if theirs else timedelta(0)
