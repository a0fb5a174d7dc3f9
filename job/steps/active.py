"""R2.3: the active sessions: how many users have how many, how long they go on, when and by what they are used.

Only sums leave the database, and never more of them than there are buckets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from job.context import RunContext
from job.database.link import Link
from job.database.queries import ClientUsage, Concurrency, RuleQueries
from job.database.schema import usage

_HOUR = timedelta(hours=1)
_DAY_HOURS = 24
# The least of each range: sessions of one user, and ages in seconds.
_SESSIONS = (1, 2, 4, 6, 11, 51)
_AGES = (0, 300, 1800, 3600, 4 * 3600, 86_400, 7 * 86_400, 30 * 86_400)


@dataclass(frozen=True, slots=True)
class Active:
    """How sessions are used; what is None is not known of this table.

    Attributes:
        at: when, by the database's clock.
        concurrency: how many live sessions users have.
        ages: how many live sessions have gone on for at least so many seconds, but less than the next key.
        begun_by_hour: how many of the live sessions began in each hour of the last day, by hour (UTC, 0 to 23).
        clients: live sessions by kind of client.
    """

    at: datetime
    concurrency: Concurrency | None
    ages: Mapping[int, int] | None
    begun_by_hour: Mapping[int, int] | None
    clients: list[ClientUsage]


def step(context: RunContext, queries: RuleQueries, link: Link | None) -> Active:
    """Measures how sessions are used, and tells the log; with the hour's usage kept in the statistics.

    Args:
        context: the run.
        queries: of the session table.
        link: where the usage is kept; None to keep none. A dry run keeps none either.

    Raises:
        DatabaseUnavailableError: the database cannot be reached.
    """
    context.clock.checkpoint()
    context.progress.start("Active sessions")
    now = datetime.now(UTC) + queries.clock_offset()
    hour = now.replace(minute=0, second=0, microsecond=0)
    hours = [hour - n * _HOUR for n in range(_DAY_HOURS)]
    begun = queries.begun_by_hour(hours)
    active = Active(
        at=now,
        concurrency=queries.concurrency(_SESSIONS),
        # A session that began a moment ago, or by its own clock in a moment, is at least as old as the first range.
        ages=queries.ages(now + timedelta(seconds=context.spec.safety.clock_skew_seconds), _AGES),
        begun_by_hour=None if begun is None else {h.hour: n for h, n in zip(hours, begun, strict=True)},
        clients=queries.usage_by_client(hour),
    )
    _tell(context, active)
    if link is not None and not context.dry_run:
        _keep(context, link, active)
    context.progress.finish(f"{sum(c.active for c in active.clients):,} active")
    return active


def _tell(context: RunContext, active: Active) -> None:
    fields: dict[str, Any] = {"clients": {c.client: c.active for c in active.clients}}
    if active.concurrency:
        fields |= {
            "users": active.concurrency.users,
            "mostPerUser": active.concurrency.most,
            "usersBySessions": _filled(active.concurrency.by_sessions),
        }
    if active.ages is not None:
        fields["sessionsByAgeSeconds"] = _filled(active.ages)
    if active.begun_by_hour is not None:
        fields["begunByHour"] = _filled(active.begun_by_hour)
    context.log.info("usage", **fields)


def _filled(counts: Mapping[int, int]) -> dict[str, int]:
    return {str(key): count for key, count in counts.items() if count}


def _keep(context: RunContext, link: Link, active: Active) -> None:
    """Writes the hour's rows; a later run within the hour replaces them. What is older than the policy keeps goes."""
    metadata = context.policy.metadata
    hour = {
        "policy": f"{metadata.namespace}/{metadata.name}",
        "day": active.at.astimezone(UTC).date(),
        "hour": active.at.astimezone(UTC).hour,
    }
    rows = [{**hour, "client": c.client, "active": c.active, "begun": c.begun, "used": c.used} for c in active.clients]
    oldest = (active.at - timedelta(days=context.spec.statistics.retention_days)).astimezone(UTC).date()

    def work(connection: sa.Connection) -> None:
        connection.execute(sa.delete(usage).where(*(usage.c[name] == value for name, value in hour.items())))
        connection.execute(sa.delete(usage).where(usage.c.policy == hour["policy"], usage.c.day < oldest))
        if rows:
            connection.execute(sa.insert(usage), rows)

    link.transaction(work)
