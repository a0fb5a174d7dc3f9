"""What is counted before anything is deleted, in two passes over the table: of all sessions, and by user.

Without it, several steps would each have to read the whole table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from job.steps.context import RunContext
from stores.model.sessions import SessionTotals
from stores.sql.counting import Counts
from stores.sql.owners import Owners
from stores.sql.queries import RuleQueries

_HOUR = timedelta(hours=1)
_DAY_HOURS = 24
# The lower bound of each range: sessions of one user, and ages in seconds.
SESSIONS = (1, 2, 4, 6, 11, 51)
AGES = (0, 300, 1800, 3600, 4 * 3600, 86_400, 7 * 86_400, 30 * 86_400)


@dataclass(frozen=True, slots=True)
class Overview:
    """How many sessions and users there are, counted before anything is deleted.

    Attributes:
        at: when, by the database's clock.
        skew: how far clocks may differ.
        offset: how far the database's clock is ahead of this process's.
        counts: all sessions, and when they began.
        owners: users, and what they have too many of.
    """

    at: datetime
    skew: timedelta
    offset: timedelta
    counts: Counts
    owners: Owners

    @property
    def totals(self) -> SessionTotals:
        """How many sessions and users there are."""
        return SessionTotals(self.counts.total, self.counts.expired, self.owners.users)

    @property
    def hours(self) -> list[datetime]:
        """The hours of the last day, each by its beginning; the current one comes first."""
        return _hours(self.at)

    def begun_by_hour(self) -> dict[int, int] | None:
        """How many live sessions began in each hour (UTC, 0 to 23) of the last day; None if not known."""
        begun = self.counts.created
        if begun is None:
            return None
        return {hour.hour: begun.live_before(hour + _HOUR) - begun.live_before(hour) for hour in self.hours}

    def live_by_age(self) -> dict[int, int] | None:
        """How many live sessions are at least so many seconds old, but younger than the next key; None if not known.

        A session that began a moment ago, or by its own clock in a moment, is at least as old as the first range.
        """
        begun = self.counts.created
        if begun is None:
            return None
        return between(AGES, [begun.live_before(self.at + self.skew - timedelta(seconds=age)) for age in AGES])

    def begun_since(self, moment: datetime) -> int | None:
        """How many sessions, live or not, began since a moment that was asked for, by this process's clock."""
        begun = self.counts.created
        return None if begun is None else begun.all_since(moment + self.offset)


def count_sessions(context: RunContext, queries: RuleQueries, limit: int, since: Sequence[datetime] = ()) -> Overview:
    """Counts sessions and users, in two passes over the table.

    Args:
        context: the run.
        queries: of the session table.
        limit: sessions a user may have; 0 for any number.
        since: moments, by this process's clock, since which begun sessions are to be counted.

    Raises:
        StopRequestedError: the run has to stop.
        DatabaseUnavailableError: the database cannot be reached.
    """
    context.clock.checkpoint()
    context.progress.start("Counting sessions")
    offset = queries.clock_offset()
    now, skew = datetime.now(UTC) + offset, timedelta(seconds=context.spec.safety.clock_skew_seconds)
    hours = _hours(now)
    ages = (now + skew - timedelta(seconds=age) for age in AGES)
    counts = queries.count([hours[0] + _HOUR, *hours, *ages, *(moment + offset for moment in since)])
    context.clock.checkpoint()
    owners = queries.count_owners(limit, context.spec.concurrency.exempt_users, SESSIONS)
    context.progress.finish(f"{counts.total:,} found")
    return Overview(now, skew, offset, counts, owners)


def between(bounds: Sequence[int], at_least: Sequence[int]) -> dict[int, int]:
    """From how many reach each bound to how many lie between it and the next."""
    following = [*at_least[1:], 0]
    return {bound: n - more for bound, n, more in zip(bounds, at_least, following, strict=True)}


def _hours(now: datetime) -> list[datetime]:
    hour = now.replace(minute=0, second=0, microsecond=0)
    return [hour - n * _HOUR for n in range(_DAY_HOURS)]
