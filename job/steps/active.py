"""R2.3: the active sessions: how many users have how many, how long they go on, when and by what they are used.

Only sums leave the database, and never more of them than there are buckets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from job.steps.context import RunContext
from job.steps.overview import SESSIONS, Overview, between
from stores.rules.table import Need
from stores.sql.connection.run_connection import RunConnection
from stores.sql.queries import ClientUsage, RuleQueries
from stores.sql.schema.tables import usage


@dataclass(frozen=True, slots=True)
class Active:
    """How sessions are used; what is None is not known of this table.

    Attributes:
        at: when, by the database's clock.
        users: users with a live session.
        most: the most live sessions that one of them has.
        by_sessions: how many users have so many live sessions; the key is the fewest of its range.
        ages: how many live sessions have gone on for at least so many seconds, but less than the next key.
        begun_by_hour: how many of the live sessions began in each hour of the last day, by hour (UTC, 0 to 23).
        clients: live sessions by kind of client.
    """

    at: datetime
    users: int
    most: int
    by_sessions: Mapping[int, int] | None
    ages: Mapping[int, int] | None
    begun_by_hour: Mapping[int, int] | None
    clients: list[ClientUsage]


def step(context: RunContext, queries: RuleQueries, connection: RunConnection | None, overview: Overview) -> Active:
    """Tells the log how sessions are used; with the hour's usage kept in the statistics.

    Args:
        context: the run.
        queries: of the session table.
        connection: where the usage is kept; None to keep none. A dry run keeps none either.
        overview: what was counted before anything was deleted. Only live sessions are told of, and those were not.

    Raises:
        DatabaseUnavailableError: the database cannot be reached.
    """
    context.clock.checkpoint()
    context.progress.start("Active sessions")
    owners = overview.owners
    active = Active(
        at=overview.at,
        users=owners.owners,
        most=owners.most,
        by_sessions=between(SESSIONS, owners.reaching) if Need.OWNER in queries.met else None,
        ages=overview.live_by_age(),
        begun_by_hour=overview.begun_by_hour(),
        clients=queries.usage_by_client(overview.hours[0]),
    )
    _tell(context, active)
    if connection is not None and not context.dry_run:
        _keep(context, connection, active)
    context.progress.finish(f"{sum(c.active for c in active.clients):,} active")
    return active


def _tell(context: RunContext, active: Active) -> None:
    fields: dict[str, Any] = {"clients": {c.client: c.active for c in active.clients}}
    if active.by_sessions is not None:
        fields |= {
            "users": active.users,
            "mostPerUser": active.most,
            "usersBySessions": _filled(active.by_sessions),
        }
    if active.ages is not None:
        fields["sessionsByAgeSeconds"] = _filled(active.ages)
    if active.begun_by_hour is not None:
        fields["begunByHour"] = _filled(active.begun_by_hour)
    context.log.info("usage", **fields)


def _filled(counts: Mapping[int, int]) -> dict[str, int]:
    return {str(key): count for key, count in counts.items() if count}


def _keep(context: RunContext, connection: RunConnection, active: Active) -> None:
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

    connection.transaction(work)
