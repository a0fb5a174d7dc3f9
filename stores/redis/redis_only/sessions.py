"""Sessions of a policy without a database, with the interface that steps also use for a session table.

Only counts are kept in memory: each question is answered by a SCAN of the keys, page by page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from policy.spec import OnExceed
from stores.model.batches import batches
from stores.model.cutoffs import Cutoffs
from stores.model.session_log import SessionLog
from stores.model.sessions import Candidate, Cause, Deletion, RangeDeletion, Session, SessionTotals
from stores.redis.connection import scripts
from stores.redis.content.content_reader import ContentWithDigest
from stores.redis.content.session_content import Content
from stores.redis.redis_only.lock import RedisLock
from stores.redis.redis_only.ranking import Rank, Ranking, UserCountSketch, rank
from stores.redis.redis_only.session_state import SessionState, session_state
from stores.redis.store import RedisStore

if TYPE_CHECKING:
    from stores.model.key_range import KeyRange

# Sessions of users that may be over the limit, in memory at one time.
_MAX_RANKED_SESSIONS = 100_000


class _SessionWithState(NamedTuple):
    """A session and its state.

    Attributes:
        session: the session.
        state: live or expired.
    """

    session: Session
    state: SessionState


class _DeletionCandidate(NamedTuple):
    """A session with what shows, at its deletion, whether it has changed.

    Attributes:
        session: the session.
        state: live or expired.
        content: its content, with a digest.
        ttl: of the key, in milliseconds; scripts.NO_TTL for none.
    """

    session: Session
    state: SessionState
    content: ContentWithDigest
    ttl: int


class RedisOnlySessions:
    """Implements :class:`stores.model.sessions.Sessions` for a policy without a database.

    All methods raise RedisUnavailableError, ConfigurationError, and LockLostError: the lock is checked before each
    batch.

    Args:
        store: the session keys.
        lock: the exclusive lock, acquired.
        cutoffs: the times before which a session has expired, by the clock of Redis.
        batch_size: sessions per page and batch.
        grace_seconds: live sessions used within this time are not deleted.
        audit: log of deleted sessions; None for none.
    """

    def __init__(
        self,
        store: RedisStore,
        lock: RedisLock,
        cutoffs: Cutoffs,
        batch_size: int,
        grace_seconds: int,
        audit: SessionLog | None = None,
    ) -> None:
        self._store = store
        self._lock = lock
        self._cutoffs = cutoffs
        self._batch_size = batch_size
        self._grace = timedelta(seconds=grace_seconds)
        self._audit = audit
        self._sketch: UserCountSketch | None = None
        self._ranking: Ranking | None = None

    # --- reading -------------------------------------------------------------------------------------------------

    def totals(self) -> SessionTotals:
        """Counts all sessions, and estimates closely how many users have a live one."""
        total = expired = 0
        self._sketch = sketch = UserCountSketch()
        for page in self._pages():
            total += len(page)
            for found in page:
                if found.state is not SessionState.LIVE:
                    expired += 1
                elif found.session.user_id is not None:
                    sketch.add(found.session.user_id)
        return SessionTotals(total=total, expired=expired, users=sketch.users())

    def expired_pages(self, key_ranges: Sequence[KeyRange] | None = None) -> Iterator[list[Candidate]]:
        """All expired sessions, in batches. No other store could know of a later use, so idle ones are final."""
        for page in self._pages():
            if expired := [Candidate(found.session) for found in page if found.state is not SessionState.LIVE]:
                yield expired

    def bulk_delete_expired(self, key_ranges: Sequence[KeyRange] | None = None) -> Iterator[RangeDeletion]:
        """Deletes all expired sessions, in batches."""
        for page in self.expired_pages():
            deletion = self.delete_expired([candidate.session for candidate in page])
            yield RangeDeletion(deletion.deleted, deletion.failed)

    def strategy(self) -> None:
        """None: in Redis there is only one way to delete."""
        return None

    def live_id_pages(self) -> Iterator[list[str]]:
        """The ids of all live sessions, in batches; an id may be returned twice."""
        for page in self._pages():
            if live := [found.session.key for found in page if found.state is SessionState.LIVE]:
                yield live

    def live_sessions(self, ids: Sequence[str]) -> list[Session]:
        """Those of the sessions that are live."""
        return [found.session for found in self._with_state(ids) if found.state is SessionState.LIVE]

    def existing(self, keys: Collection[str]) -> set[str]:
        """Those of the ids that have a session key, live or expired."""
        return self._store.key_states(keys).sessions

    # --- the limit per user --------------------------------------------------------------------------------------

    def count_over_limit(self, limit: int, exempt: Collection[str]) -> int:
        """How many live sessions are over their user's limit.

        A user's sessions are those in the user's index or, without indexes, those whose content names the user.
        """
        return sum(len(page) for page in self.over_limit_pages(limit, OnExceed.EVICT_OLDEST, exempt))

    def over_limit_pages(self, limit: int, on_exceed: OnExceed, exempt: Collection[str]) -> Iterator[list[Session]]:
        """The live sessions over their user's limit, in batches: those that ``on_exceed`` evicts."""
        skipped = frozenset(exempt)
        find = self._over_limit_by_index if self._store.names.user_index is not None else self._over_limit_by_content
        excess: list[Session] = []
        for sessions in find(limit, on_exceed, skipped):
            excess += sessions
            while len(excess) >= self._batch_size:
                yield excess[: self._batch_size]
                excess = excess[self._batch_size :]
        if excess:
            yield excess

    def _over_limit_by_content(
        self, limit: int, on_exceed: OnExceed, exempt: frozenset[str]
    ) -> Iterator[list[Session]]:
        if self._sketch is None:
            self.totals()
        assert self._sketch is not None
        for group in self._sketch.groups_over(limit, _MAX_RANKED_SESSIONS):
            self._ranking = ranking = Ranking(limit, on_exceed)
            for page in self._pages():
                owned = [f.session for f in page if f.state is SessionState.LIVE and f.session.user_id in group]
                yield _excess(ranking, (s for s in owned if s.user_id not in exempt))

    def _over_limit_by_index(self, limit: int, on_exceed: OnExceed, exempt: frozenset[str]) -> Iterator[list[Session]]:
        self._ranking = ranking = Ranking(limit, on_exceed)
        over_limit: deque[str] = deque()
        for user, pages in self._store.indexes_larger_than(limit):
            if user in exempt:
                continue
            before = len(over_limit)
            for ids in pages:
                self._lock.check()
                live = (found for found in self._with_state(ids) if found.state is SessionState.LIVE)
                # If the session belongs to another user by now, the index entry is stale.
                owned = (f.session for f in live if f.session.user_id in (None, user))
                if excess := _excess(ranking, (_owned_by(session, user) for session in owned)):
                    over_limit.append(user)
                    yield excess
            if len(over_limit) == before:
                ranking.forget(user)
            # By now, the sessions of the first users were yielded in a batch and are settled.
            while len(over_limit) > 2 * self._batch_size:
                ranking.forget(over_limit.popleft())

    # --- deleting ------------------------------------------------------------------------------------------------

    def delete_expired(self, sessions: Sequence[Session]) -> Deletion:
        """Deletes those of the sessions that are still expired."""
        due = [found for found in self._read_again(sessions) if found.state is not SessionState.LIVE]
        return self._delete(due, Cause.EXPIRED)

    def delete_over_limit(self, sessions: Sequence[Session], limit: int, on_exceed: OnExceed) -> Deletion:
        """Deletes those of the sessions, from the last page, that are still over their user's limit."""
        users = {str(s.user_id) for s in sessions}
        kept = [s for user in users for s in (self._ranking.kept(user) if self._ranking else [])]
        owners = {s.key: str(s.user_id) for s in [*kept, *sessions]}
        ranks: dict[str, list[Rank]] = {user: [] for user in users}
        for found in self._read_again(kept):
            if found.state is SessionState.LIVE:
                ranks[owners[found.session.key]].append(rank(found.session, on_exceed))
        due: list[_DeletionCandidate] = []
        for found in self._read_again(sessions):
            own_rank = rank(found.session, on_exceed)
            higher = sum(other > own_rank for other in ranks[owners[found.session.key]])
            if higher >= limit and found.state is SessionState.LIVE:
                due.append(found)
        return self._delete(due, Cause.EVICTED, owners)

    def delete_live(self, sessions: Sequence[Session]) -> Deletion:
        """Deletes live sessions, except those created or used within the grace period."""
        moment = self._store.server_time() - self._grace
        unused = [
            found
            for found in self._read_again(sessions)
            if all(t is None or t < moment for t in (found.session.created_at, found.session.last_accessed_at))
        ]
        return self._delete(unused, Cause.DESYNCED)

    def _delete(
        self, found: Sequence[_DeletionCandidate], cause: Cause, owners: dict[str, str] | None = None
    ) -> Deletion:
        """Deletes the sessions that have not changed since they were read, with their access logs and index entries."""
        if not found:
            return Deletion()
        self._lock.check()
        sessions = {f.session.key: _owned_by(f.session, (owners or {}).get(f.session.key)) for f in found}
        outcome = self._store.delete_if_unchanged(
            {f.session.key: f.content for f in found},
            {f.session.key: f.ttl for f in found},
        )
        # Missing sessions may have been deleted by our own command whose reply was lost.
        self._store.remove_access_logs_and_index_entries([sessions[i] for i in [*outcome.deleted, *outcome.missing]])
        deleted = [sessions[i] for i in outcome.deleted]
        if self._audit:
            self._audit.deleted(deleted, cause.value)
        return Deletion(deleted)

    # --- inside --------------------------------------------------------------------------------------------------

    def _pages(self) -> Iterator[list[_SessionWithState]]:
        for page in self._store.session_pages():
            for ids in batches(page, self._batch_size):
                self._lock.check()
                yield list(self._with_state(ids))

    def _with_state(self, ids: Collection[str]) -> Iterator[_SessionWithState]:
        ttls = self._store.key_states(ids).ttls
        for session_id, content in self._store.contents_with_empty(ttls).items():
            yield _SessionWithState(_session(session_id, content), self._state(content, ttls[session_id]))

    def _read_again(self, sessions: Sequence[Session]) -> Iterator[_DeletionCandidate]:
        """The sessions as they are now, right before they are deleted."""
        ttls = self._store.key_states(session.key for session in sessions).ttls
        for session_id, read in self._store.contents_with_digests(ttls).items():
            state = self._state(read.content, ttls[session_id])
            yield _DeletionCandidate(_session(session_id, read.content), state, read, ttls[session_id])

    def _state(self, content: Content, ttl: int) -> SessionState:
        return session_state(content, has_ttl=ttl != scripts.NO_TTL, cutoffs=self._cutoffs)


def _session(session_id: str, content: Content) -> Session:
    return Session(session_id, content.user_id, content.created_at, content.last_accessed_at)


def _excess(ranking: Ranking, sessions: Iterator[Session]) -> list[Session]:
    return [excess for session in sessions if (excess := ranking.add(session)) is not None]


def _owned_by(session: Session, user: str | None) -> Session:
    if user is None or session.user_id is not None:
        return session
    return Session(session.id, user, session.created_at, session.last_accessed_at)
