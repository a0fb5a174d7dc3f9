"""Finds the sessions over a user's limit while sessions are scanned in any order."""

from __future__ import annotations

import heapq
import math
import mmap
from collections.abc import Iterable, Iterator
from datetime import datetime

from policy.spec import OnExceed
from stores.model.sessions import Session

Rank = tuple[float, str]
"""A session's rank among its user's sessions; the lowest is evicted first."""


def rank(session: Session, on_exceed: OnExceed) -> Rank:
    """The rank of a session. Sessions whose time is unknown are evicted last."""
    newest_first = on_exceed is OnExceed.EVICT_NEWEST
    by_creation = newest_first or on_exceed is OnExceed.EVICT_OLDEST
    moment: datetime | None = session.created_at if by_creation else session.last_accessed_at
    if moment is None:
        return math.inf, session.key
    return -moment.timestamp() if newest_first else moment.timestamp(), session.key


class Ranking:
    """Keeps the highest-ranked sessions of each user and returns those over the limit.

    Args:
        limit: sessions that a user may keep.
        on_exceed: which are evicted first.
    """

    def __init__(self, limit: int, on_exceed: OnExceed) -> None:
        self._limit = limit
        self._on_exceed = on_exceed
        self._kept: dict[str, list[tuple[Rank, Session]]] = {}
        self._ids: dict[str, set[str]] = {}

    def add(self, session: Session) -> Session | None:
        """Adds a session. Returns the user's lowest-ranked session if the user is now over the limit."""
        user = str(session.user_id)
        ids, kept = self._ids.setdefault(user, set()), self._kept.setdefault(user, [])
        if session.key in ids:
            return None  # SCAN returned it twice
        entry = (rank(session, self._on_exceed), session)
        ids.add(session.key)
        if len(kept) < self._limit:
            heapq.heappush(kept, entry)
            return None
        lowest = heapq.heappushpop(kept, entry)[1]
        ids.discard(lowest.key)
        return lowest

    def kept(self, user: str) -> list[Session]:
        """The sessions that the user keeps so far."""
        return [session for _, session in self._kept.get(user, [])]

    def forget(self, user: str) -> None:
        """Frees the memory of a user whose sessions are all settled."""
        self._kept.pop(user, None)
        self._ids.pop(user, None)


_SIZE = 2**22


class UserCountSketch:
    """Counts sessions per user in at most 16 MiB: a count-min sketch with one hash, never too low, rarely too high.

    It shows which users *may* be over the limit, so that only those have to be counted exactly.
    """

    def __init__(self) -> None:
        # The kernel allocates only pages that are written to: few users need little memory.
        self._counts = memoryview(mmap.mmap(-1, 4 * _SIZE)).cast("I")
        self._used = 0
        self._largest = 0

    def add(self, user: str) -> None:
        """Counts one more session of the user."""
        bucket = hash(user) % _SIZE
        self._counts[bucket] = count = self._counts[bucket] + 1
        if count == 1:
            self._used += 1
        self._largest = max(self._largest, count)

    def users(self) -> int:
        """The estimated number of users: off by a few in ten thousand, exact for few users."""
        used = self._used
        return round(-_SIZE * math.log1p(-used / _SIZE)) if used < _SIZE else used

    def groups_over(self, limit: int, max_sessions: int) -> Iterator[UserBuckets]:
        """The users that may be over the limit, in groups of about ``max_sessions`` sessions at most."""
        if self._largest <= limit:
            return
        chosen: set[int] = set()
        sessions = 0
        for bucket, count in enumerate(self._counts):
            if count <= limit:
                continue
            if chosen and sessions + count > max_sessions:
                yield UserBuckets(chosen)
                chosen, sessions = set(), 0
            chosen.add(bucket)
            sessions += count
        if chosen:
            yield UserBuckets(chosen)


class UserBuckets:
    """A set of users, as buckets of a :class:`UserCountSketch`.

    Args:
        buckets: their numbers.
    """

    def __init__(self, buckets: Iterable[int]) -> None:
        self._buckets = frozenset(buckets)

    def __contains__(self, user: str) -> bool:
        return hash(user) % _SIZE in self._buckets
