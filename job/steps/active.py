"""R2.3: how active sessions are used: how many each user has, how old they are, when and by which clients.

The database returns sums only, no more of them than there are ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from job.steps.context import RunContext
from job.steps.overview import SESSIONS, Overview, between
from stores.rules.detector import RequiredField
from stores.sql.connection.run_connection import RunConnection
from stores.sql.queries import ClientUsage, RuleQueries
from stores.sql.schema.tables import usage


@dataclass(frozen=True, slots=True)
class SessionUsage:
    """How active sessions are used; None is what this table does not tell.

    Attributes:
        at: when, by the database's clock.
        users: users with a live session.
        most: the most live sessions that one of them has.
        by_sessions: how many users have so many live sessions; the key is the fewest of its range.
        ages: how many live sessions are at least so many seconds old, but younger than the next key.
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


def report_usage(
    context: RunContext, queries: RuleQueries, connection: RunConnection | None, overview: Overview
) -> SessionUsage:
    """Logs how active sessions are used, and keeps the usage of this hour in the statistics.

    Args:
        context: the run.
        queries: of the session table.
        connection: where the usage is kept; None to keep none. A dry run keeps none either.
        overview: what was counted before anything was deleted; the live sessions in it have not been touched since.

    Raises:
        DatabaseUnavailableError: the database cannot be reached.
    """
    context.clock.checkpoint()
    context.progress.start("Active sessions")
    owners = overview.owners
    found = SessionUsage(
        at=overview.at,
        users=owners.owners,
        most=owners.most,
        by_sessions=between(SESSIONS, owners.reaching) if RequiredField.USER_ID in queries.mapped else None,
        ages=overview.live_by_age(),
        begun_by_hour=overview.begun_by_hour(),
        clients=queries.usage_by_client(overview.hours[0]),
    )
    _log(context, found)
    if connection is not None and not context.dry_run:
        _save(context, connection, found)
    context.progress.finish(f"{sum(c.active for c in found.clients):,} active")
    return found


def _log(context: RunContext, found: SessionUsage) -> None:
    fields: dict[str, Any] = {"clients": {c.client: c.active for c in found.clients}}
    if found.by_sessions is not None:
        fields |= {
            "users": found.users,
            "mostPerUser": found.most,
            "usersBySessions": _non_zero(found.by_sessions),
        }
    if found.ages is not None:
        fields["sessionsByAgeSeconds"] = _non_zero(found.ages)
    if found.begun_by_hour is not None:
        fields["begunByHour"] = _non_zero(found.begun_by_hour)
    context.log.info("session usage", **fields)


def _non_zero(counts: Mapping[int, int]) -> dict[str, int]:
    return {str(key): count for key, count in counts.items() if count}


def _save(context: RunContext, connection: RunConnection, found: SessionUsage) -> None:
    """Writes the rows of this hour, in place of an earlier run's; deletes what is older than the policy keeps."""
    metadata = context.policy.metadata
    hour = {
        "policy": f"{metadata.namespace}/{metadata.name}",
        "day": found.at.astimezone(UTC).date(),
        "hour": found.at.astimezone(UTC).hour,
    }
    rows = [{**hour, "client": c.client, "active": c.active, "begun": c.begun, "used": c.used} for c in found.clients]
    oldest = (found.at - timedelta(days=context.spec.statistics.retention_days)).astimezone(UTC).date()

    def write(transaction: sa.Connection) -> None:
        transaction.execute(sa.delete(usage).where(*(usage.c[name] == value for name, value in hour.items())))
        transaction.execute(sa.delete(usage).where(usage.c.policy == hour["policy"], usage.c.day < oldest))
        if rows:
            transaction.execute(sa.insert(usage), rows)

    connection.transaction(write)
