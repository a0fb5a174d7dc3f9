"""Which of a user's sessions are over the limit, told as they are met, in any order and number."""

from __future__ import annotations

import heapq
import math
import mmap
from collections.abc import Iterable, Iterator
from datetime import datetime

from policy.spec import OnExceed
from stores.model.sessions import Session

Rank = tuple[float, str]
"""A session's rank among its user's; the lowest goes first."""


def rank(session: Session, on_exceed: OnExceed) -> Rank:
    """Where a session stands. One whose time is not known is the last to go."""
    newest_first = on_exceed is OnExceed.EVICT_NEWEST
    by_creation = newest_first or on_exceed is OnExceed.EVICT_OLDEST
    moment: datetime | None = session.created_at if by_creation else session.last_accessed_at
    if moment is None:
        return math.inf, session.key
    return -moment.timestamp() if newest_first else moment.timestamp(), session.key


class Ranking:
    """Keeps the best sessions of each user, and gives back what is too many.

    Args:
        limit: sessions a user may keep.
        on_exceed: which of them go first.
    """

    def __init__(self, limit: int, on_exceed: OnExceed) -> None:
        self._limit = limit
        self._on_exceed = on_exceed
        self._best: dict[str, list[tuple[Rank, Session]]] = {}
        self._ids: dict[str, set[str]] = {}

    def add(self, session: Session) -> Session | None:
        """Takes a session of a user. Returns one of the user's that is over the limit, if there is one by now."""
        user = str(session.user_id)
        ids, best = self._ids.setdefault(user, set()), self._best.setdefault(user, [])
        if session.key in ids:
            return None  # met twice
        entry = (rank(session, self._on_exceed), session)
        ids.add(session.key)
        if len(best) < self._limit:
            heapq.heappush(best, entry)
            return None
        worst = heapq.heappushpop(best, entry)[1]
        ids.discard(worst.key)
        return worst

    def best(self, user: str) -> list[Session]:
        """The sessions that the user keeps."""
        return [session for _, session in self._best.get(user, [])]

    def forget(self, user: str) -> None:
        """No more sessions of this user will come, and nothing will be asked of them."""
        self._best.pop(user, None)
        self._ids.pop(user, None)


_SIZE = 2**22


class UserCountSketch:
    """Counts the sessions of any number of users in 16 MiB at most: never too few of anyone, rarely too many.

    It tells which users *may* be over the limit, so that only those have to be counted one by one.
    """

    def __init__(self) -> None:
        # Memory of which the kernel provides only the pages that are written to: few users need little.
        self._counts = memoryview(mmap.mmap(-1, 4 * _SIZE)).cast("I")
        self._used = 0
        self._largest = 0

    def add(self, user: str) -> None:
        """Another session of the user."""
        bucket = hash(user) % _SIZE
        self._counts[bucket] = count = self._counts[bucket] + 1
        if count == 1:
            self._used += 1
        self._largest = max(self._largest, count)

    def users(self) -> int:
        """About how many users there are: off by a few in ten thousand, and by none where there are few."""
        used = self._used
        return round(-_SIZE * math.log1p(-used / _SIZE)) if used < _SIZE else used

    def groups(self, limit: int, most: int) -> Iterator[UserBuckets]:
        """The users that may be over the limit, in groups that have about so many sessions at most."""
        if self._largest <= limit:
            return
        chosen: set[int] = set()
        sessions = 0
        for bucket, count in enumerate(self._counts):
            if count <= limit:
                continue
            if chosen and sessions + count > most:
                yield UserBuckets(chosen)
                chosen, sessions = set(), 0
            chosen.add(bucket)
            sessions += count
        if chosen:
            yield UserBuckets(chosen)


class UserBuckets:
    """Some users, known by their buckets only.

    Args:
        buckets: of a :class:`UserCountSketch`.
    """

    def __init__(self, buckets: Iterable[int]) -> None:
        self._buckets = frozenset(buckets)

    def __contains__(self, user: str) -> bool:
        return hash(user) % _SIZE in self._buckets
