"""R2.7: count what is live now, and keep the run's statistics for reports and trends."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from job.steps.context import RunContext
from policy.report import RunReport
from stores.model.sessions import SessionTotals
from stores.sql.connection.run_connection import RunConnection
from stores.sql.queries import RuleQueries
from stores.sql.removal.history import forget_before, save_statistics


def count_after_deletions(
    context: RunContext, queries: RuleQueries, before: SessionTotals, users_gone: bool
) -> SessionTotals:
    """Counts sessions and users after the deletions, as far as they can have changed.

    Args:
        context: the run.
        queries: of the session table.
        before: what was counted before anything was deleted.
        users_gone: whether a user may have lost all live sessions. Duplicates and the limit leave one.
    """
    if not context.tally.deleted:
        return before
    counts = queries.count(())
    return SessionTotals(counts.total, counts.expired, queries.count_users() if users_gone else before.users)


def report_active(context: RunContext, census: SessionTotals, kept_by_redis: int) -> int:
    """Puts the live sessions after the deletions into tally and log. Returns how many users they belong to.

    Args:
        context: the run.
        census: what was counted after them.
        kept_by_redis: sessions the database calls idle, but Redis saw in use.
    """
    context.tally.active = census.active + kept_by_redis
    context.log.info("active sessions", sessions=context.tally.active, users=census.users)
    return census.users


def save_run_statistics(
    context: RunContext,
    connection: RunConnection,
    run_id: str,
    active_users: int,
    created: int | None,
    report: RunReport,
    now: datetime,
) -> None:
    """Writes the run's row of statistics, and deletes rows that are older than the policy keeps.

    Written again for the same run, the row is replaced.
    """
    metadata = context.policy.metadata
    policy = f"{metadata.namespace}/{metadata.name}"
    row = {
        "run_id": run_id,
        "policy": policy,
        "started_at": report.start_time,
        "completed_at": report.completion_time,
        "outcome": report.outcome.value,
        "active_users": active_users,
        "created": created,
        **report.sessions.model_dump(),
    }
    oldest = now - timedelta(days=context.spec.statistics.retention_days)

    def write(transaction: sa.Connection) -> None:
        save_statistics(transaction, row)
        forget_before(transaction, policy, oldest)

    connection.transaction(write)
