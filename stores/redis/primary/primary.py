"""Sessions that only Redis knows: what the steps ask of a session table, answered by session keys.

Nothing is kept of sessions but counts: each question is answered by a walk through the keys, a page at a time.
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
from stores.redis.content.contents import Marked
from stores.redis.content.payload import Content
from stores.redis.primary.lock import RedisLock
from stores.redis.primary.ranking import Ranking, UserSketch, place
from stores.redis.primary.verdict import Verdict, judge
from stores.redis.store import RedisStore

if TYPE_CHECKING:
    from stores.model.key_range import KeyRange

# Sessions of users that may be over the limit, held at one time.
_MOST_AT_ONCE = 100_000


class _Seen(NamedTuple):
    """A session as its key tells of it.

    Attributes:
        session: what is known of the session.
        verdict: whether it has ended.
    """

    session: Session
    verdict: Verdict


class _Found(NamedTuple):
    """As :class:`_Seen`, with what a session is recognised by when it is deleted.

    Attributes:
        session: what is known of the session.
        verdict: whether it has ended.
        marked: its content.
        ttl: of the key, in milliseconds; scripts.NO_TTL for none.
    """

    session: Session
    verdict: Verdict
    marked: Marked
    ttl: int


class RedisPrimary:
    """Implements :class:`stores.model.sessions.Sessions` for a Redis without a database behind it.

    All methods raise RedisUnavailableError and ConfigurationError, and LockLostError: before each batch the lock is
    checked.

    Args:
        store: the session keys.
        lock: the exclusive lock, taken.
        cutoffs: before when a session has expired, by the clock of Redis.
        batch_size: sessions per page and batch.
        grace_seconds: how long ago a session must have been used to count as unused.
        audit: the log of single deleted sessions; None for none.
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
        self._sketch: UserSketch | None = None
        self._ranking: Ranking | None = None

    # --- reading -------------------------------------------------------------------------------------------------

    def totals(self) -> SessionTotals:
        """Counts all sessions. Users are those of live sessions whose content names one, by a very close estimate."""
        total = expired = 0
        self._sketch = sketch = UserSketch()
        for page in self._pages():
            total += len(page)
            for found in page:
                if found.verdict is not Verdict.LIVE:
                    expired += 1
                elif found.session.user_id is not None:
                    sketch.add(found.session.user_id)
        return SessionTotals(total=total, expired=expired, users=sketch.users())

    def expired_pages(self, key_ranges: Sequence[KeyRange] | None = None) -> Iterator[list[Candidate]]:
        """All expired sessions, a batch at a time: here, nothing else could know of a later use of an idle one."""
        for page in self._pages():
            if expired := [Candidate(found.session) for found in page if found.verdict is not Verdict.LIVE]:
                yield expired

    def bulk_delete_expired(self, key_ranges: Sequence[KeyRange] | None = None) -> Iterator[RangeDeletion]:
        """Deletes all expired sessions, a batch at a time."""
        for page in self.expired_pages():
            deletion = self.delete_expired([candidate.session for candidate in page])
            yield RangeDeletion(deletion.deleted, deletion.failed)

    def strategy(self) -> None:
        """Redis knows one way only."""
        return None

    def live_id_pages(self) -> Iterator[list[str]]:
        """The ids of all live sessions, a batch at a time; one may be met twice."""
        for page in self._pages():
            if live := [found.session.key for found in page if found.verdict is Verdict.LIVE]:
                yield live

    def live_sessions(self, ids: Sequence[str]) -> list[Session]:
        """Those of the sessions that are live."""
        return [seen.session for seen in self._look(ids) if seen.verdict is Verdict.LIVE]

    def existing(self, keys: Collection[str]) -> set[str]:
        """Those of the ids that have a session key, live or not."""
        return self._store.inspect(keys).sessions

    # --- the limit per user --------------------------------------------------------------------------------------

    def count_over_limit(self, limit: int, exempt: Collection[str]) -> int:
        """How many live sessions are over their user's limit.

        A user's sessions are those in the user's index or, where the policy has none, those whose content says so.
        """
        return sum(len(page) for page in self._over_limit(limit, OnExceed.EVICT_OLDEST, exempt))

    def over_limit_pages(self, limit: int, on_exceed: OnExceed, exempt: Collection[str]) -> Iterator[list[Session]]:
        """The live sessions over their user's limit, a batch at a time: those that ``on_exceed`` says should go."""
        return self._over_limit(limit, on_exceed, exempt)

    def _over_limit(self, limit: int, on_exceed: OnExceed, exempt: Collection[str]) -> Iterator[list[Session]]:
        skipped = frozenset(exempt)
        walk = self._by_index if self._store.names.user_index is not None else self._by_content
        excess: list[Session] = []
        for sessions in walk(limit, on_exceed, skipped):
            excess += sessions
            while len(excess) >= self._batch_size:
                yield excess[: self._batch_size]
                excess = excess[self._batch_size :]
        if excess:
            yield excess

    def _by_content(self, limit: int, on_exceed: OnExceed, exempt: frozenset[str]) -> Iterator[list[Session]]:
        if self._sketch is None:
            self.totals()
        assert self._sketch is not None
        for group in self._sketch.groups(limit, _MOST_AT_ONCE):
            self._ranking = ranking = Ranking(limit, on_exceed)
            for page in self._pages():
                owned = [f.session for f in page if f.verdict is Verdict.LIVE and f.session.user_id in group]
                yield _excess(ranking, (s for s in owned if s.user_id not in exempt))

    def _by_index(self, limit: int, on_exceed: OnExceed, exempt: frozenset[str]) -> Iterator[list[Session]]:
        self._ranking = ranking = Ranking(limit, on_exceed)
        told: deque[str] = deque()
        for user, pages in self._store.indexes_over(limit):
            if user in exempt:
                continue
            before = len(told)
            for ids in pages:
                self._lock.check()
                live = (seen for seen in self._look(ids) if seen.verdict is Verdict.LIVE)
                # An entry of a session that has another owner by now is the index's mistake.
                owned = (f.session for f in live if f.session.user_id in (None, user))
                if excess := _excess(ranking, (_owned_by(session, user) for session in owned)):
                    told.append(user)
                    yield excess
            if len(told) == before:
                ranking.forget(user)
            # After so many more, the sessions of the first were handed out and are settled.
            while len(told) > 2 * self._batch_size:
                ranking.forget(told.popleft())

    # --- deleting ------------------------------------------------------------------------------------------------

    def delete_expired(self, sessions: Sequence[Session]) -> Deletion:
        """Deletes those of the sessions that are still past their timeout."""
        due = [found for found in self._again(sessions) if found.verdict is not Verdict.LIVE]
        return self._delete(due, Cause.EXPIRED)

    def delete_over_limit(self, sessions: Sequence[Session], limit: int, on_exceed: OnExceed) -> Deletion:
        """Deletes those of the sessions, of the last page, that are still over their user's limit."""
        users = {str(s.user_id) for s in sessions}
        best = [s for user in users for s in (self._ranking.best(user) if self._ranking else [])]
        owners = {s.key: str(s.user_id) for s in [*best, *sessions]}
        places: dict[str, list[tuple[float, str]]] = {user: [] for user in users}
        for found in self._again(best):
            if found.verdict is Verdict.LIVE:
                places[owners[found.session.key]].append(place(found.session, on_exceed))
        due: list[_Found] = []
        for found in self._again(sessions):
            here = place(found.session, on_exceed)
            better = sum(other > here for other in places[owners[found.session.key]])
            if better >= limit and found.verdict is Verdict.LIVE:
                due.append(found)
        return self._delete(due, Cause.EVICTED, owners)

    def delete_live(self, sessions: Sequence[Session]) -> Deletion:
        """Deletes live sessions, but for any that began or was used within the grace period."""
        moment = self._store.server_time() - self._grace
        quiet = [
            found
            for found in self._again(sessions)
            if all(t is None or t < moment for t in (found.session.created_at, found.session.last_accessed_at))
        ]
        return self._delete(quiet, Cause.DESYNCED)

    def _delete(self, found: Sequence[_Found], cause: Cause, owners: dict[str, str] | None = None) -> Deletion:
        """Deletes what is unchanged since it was found, and what belonged to it."""
        if not found:
            return Deletion()
        self._lock.check()
        sessions = {f.session.key: _owned_by(f.session, (owners or {}).get(f.session.key)) for f in found}
        outcome = self._store.delete_unchanged(
            {f.session.key: f.marked for f in found},
            {f.session.key: f.ttl for f in found},
        )
        # Those that were gone already may be ours, deleted by a command whose answer was lost.
        self._store.remove_residue([sessions[i] for i in [*outcome.deleted, *outcome.gone]])
        deleted = [sessions[i] for i in outcome.deleted]
        if self._audit:
            self._audit.deleted(deleted, cause.value)
        return Deletion(deleted)

    # --- inside --------------------------------------------------------------------------------------------------

    def _pages(self) -> Iterator[list[_Seen]]:
        for page in self._store.session_pages():
            for ids in batches(page, self._batch_size):
                self._lock.check()
                yield list(self._look(ids))

    def _look(self, ids: Collection[str]) -> Iterator[_Seen]:
        ttls = self._store.inspect(ids).ttls
        for session_id, content in self._store.all_contents(ttls).items():
            yield _Seen(_session(session_id, content), self._judge(content, ttls[session_id]))

    def _again(self, sessions: Sequence[Session]) -> Iterator[_Found]:
        return self._find([session.key for session in sessions])

    def _find(self, ids: Collection[str]) -> Iterator[_Found]:
        ttls = self._store.inspect(ids).ttls
        for session_id, marked in self._store.marked(ttls).items():
            content, ttl = marked.content, ttls[session_id]
            yield _Found(_session(session_id, content), self._judge(content, ttl), marked, ttl)

    def _judge(self, content: Content, ttl: int) -> Verdict:
        return judge(content, has_ttl=ttl != scripts.NO_TTL, cutoffs=self._cutoffs)


def _session(session_id: str, content: Content) -> Session:
    return Session(session_id, content.user_id, content.created_at, content.last_accessed_at)


def _excess(ranking: Ranking, sessions: Iterator[Session]) -> list[Session]:
    return [worst for session in sessions if (worst := ranking.add(session)) is not None]


def _owned_by(session: Session, user: str | None) -> Session:
    if user is None or session.user_id is not None:
        return session
    return Session(session.id, user, session.created_at, session.last_accessed_at)
