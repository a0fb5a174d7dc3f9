"""Rates, averages and totals of a policy, from the statistics that its runs saved in the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from stores.model.errors import ConfigurationError
from stores.sql.connection.connect import create_engine, parse_url, translate
from stores.sql.mapping.product_tables import require_product_tables
from stores.sql.schema.tables import history, statistics, usage

_MIN_INTERVAL = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class RunPoint:
    """One run.

    Attributes:
        at: when it ended.
        outcome: of the run.
        active: live sessions after it.
        users: users with a live session.
        created: sessions created since the run before; None if unknown.
        deleted: sessions it deleted.
        failed: deletions that failed.
        abnormal: sessions it found abnormal.
        remaining: sessions that were due and are not deleted yet.
        seconds: duration.
        hours: hours since the run before; None for the first.
    """

    at: datetime
    outcome: str
    active: int
    users: int
    created: int | None
    deleted: int
    failed: int
    abnormal: int
    remaining: int
    seconds: float
    hours: float | None

    @property
    def created_per_hour(self) -> float | None:
        """Sessions created per hour."""
        return None if self.created is None or self.hours is None else self.created / self.hours

    @property
    def deleted_per_hour(self) -> float | None:
        """Sessions deleted per hour."""
        return None if self.hours is None else self.deleted / self.hours


@dataclass(frozen=True, slots=True)
class DeletedOnDay:
    """Sessions deleted on one day.

    Attributes:
        day: in UTC.
        sessions: number by cause.
        seconds: their total duration, from creation to last use.
    """

    day: date
    sessions: dict[str, int]
    seconds: int

    @property
    def average_minutes(self) -> float | None:
        """Average duration of the day's deleted sessions."""
        count = sum(self.sessions.values())
        return self.seconds / count / 60 if count else None


@dataclass(frozen=True, slots=True)
class Trends:
    """Statistics of a policy over a period.

    Attributes:
        policy: namespace and name.
        since: start of the period.
        until: its end.
        runs: oldest first.
        deleted_by_day: oldest first; of all policies on the database, because the history has no policy.
        by_hour: sessions created, by hour of the day (UTC); empty if usage is not saved.
        by_client: sessions created, by kind of client, the most first.
    """

    policy: str
    since: datetime
    until: datetime
    runs: list[RunPoint] = field(default_factory=list)
    deleted_by_day: list[DeletedOnDay] = field(default_factory=list)
    by_hour: dict[int, int] = field(default_factory=dict)
    by_client: dict[str, int] = field(default_factory=dict)

    @property
    def causes(self) -> list[str]:
        """Causes of deletion, the most frequent first."""
        counts: defaultdict[str, int] = defaultdict(int)
        for day in self.deleted_by_day:
            for cause, sessions in day.sessions.items():
                counts[cause] += sessions
        return sorted(counts, key=lambda cause: (-counts[cause], cause))

    @property
    def average_minutes(self) -> float | None:
        """Average duration of the deleted sessions."""
        count = sum(sum(day.sessions.values()) for day in self.deleted_by_day)
        return sum(day.seconds for day in self.deleted_by_day) / count / 60 if count else None

    def to_json_object(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "policy": self.policy,
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "averageMinutes": self.average_minutes,
            "runs": [
                {
                    "at": run.at.isoformat(),
                    "outcome": run.outcome,
                    "active": run.active,
                    "users": run.users,
                    "deleted": run.deleted,
                    "failed": run.failed,
                    "abnormal": run.abnormal,
                    "remaining": run.remaining,
                    "seconds": run.seconds,
                    "createdPerHour": run.created_per_hour,
                    "deletedPerHour": run.deleted_per_hour,
                }
                for run in self.runs
            ],
            "ended": [
                {"day": day.day.isoformat(), "sessions": day.sessions, "averageMinutes": day.average_minutes}
                for day in self.deleted_by_day
            ],
            "begunByHour": self.by_hour,
            "begunByClient": self.by_client,
        }


def read_trends(url: str, policy: str | None, days: int, now: datetime) -> Trends:
    """The trends of a policy over the last days.

    Args:
        url: of the statistics database.
        policy: namespace and name; None where the database holds only one policy's.
        days: how far back.
        now: the time.

    Raises:
        ConfigurationError: there are no statistics, none of that policy, or of several policies and none was chosen.
        DatabaseUnavailableError: the database cannot be reached.
    """
    engine = create_engine(parse_url(url))
    try:
        with engine.connect() as connection:
            inspector = sa.inspect(connection)
            if not inspector.has_table(statistics.name):
                raise ConfigurationError(
                    "the database has no statistics tables; run `session-policy init`, then the policy"
                )
            require_product_tables(connection, [statistics, history, usage])
            since = now - timedelta(days=days)
            name = _one_policy(connection, policy)
            by_hour, by_client = _usage(connection, name, since) if inspector.has_table(usage.name) else ({}, {})
            return Trends(
                policy=name,
                since=since,
                until=now,
                runs=_runs(connection, name, since),
                deleted_by_day=_deleted_by_day(connection, since) if inspector.has_table(history.name) else [],
                by_hour=by_hour,
                by_client=by_client,
            )
    except sa.exc.SQLAlchemyError as error:
        raise translate(error) from error
    finally:
        engine.dispose()


def _one_policy(connection: sa.Connection, wanted: str | None) -> str:
    known = sorted(connection.scalars(sa.select(statistics.c.policy).distinct()))
    if not known:
        raise ConfigurationError("no statistics yet; they are saved by each run, except dry runs")
    if wanted is None and len(known) > 1:
        listed = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")  # noqa: PLR2004
        raise ConfigurationError(f"the database has statistics of several policies; choose one with --policy: {listed}")
    if wanted is not None and wanted not in known:
        raise ConfigurationError(f"the database has no statistics of {wanted}")
    return wanted or known[0]


def _runs(connection: sa.Connection, policy: str, since: datetime) -> list[RunPoint]:
    query = (
        sa.select(statistics)
        .where(statistics.c.policy == policy, statistics.c.started_at >= since)
        .order_by(statistics.c.completed_at)
    )
    return to_points(connection.execute(query).mappings())


def to_points(rows: Iterable[Any]) -> list[RunPoint]:
    """Rows of statistics, oldest first, each with the time since the run before."""
    points: list[RunPoint] = []
    for row in rows:
        started, at = in_utc(row["started_at"]), in_utc(row["completed_at"])
        before = points[-1] if points else None
        gap = max(at - before.at, _MIN_INTERVAL) if before else None
        created: int | None = row["created"]
        if created is None and before is not None:
            # Active sessions now, plus those deleted since, minus those active before.
            created = max(0, row["active"] + row["deleted"] - before.active)
        points.append(
            RunPoint(
                at=at,
                outcome=row["outcome"],
                active=row["active"],
                users=row["active_users"],
                created=created,
                deleted=row["deleted"],
                failed=row["failed"],
                abnormal=row["abnormal"],
                remaining=row["remaining"],
                seconds=max(0.0, (at - started).total_seconds()),
                hours=gap / timedelta(hours=1) if gap else None,
            )
        )
    return points


def _deleted_by_day(connection: sa.Connection, since: datetime) -> list[DeletedOnDay]:
    c = history.c
    query = (
        sa.select(c.day, c.cause, sa.func.sum(c.sessions), sa.func.sum(c.total_seconds))
        .where(c.day >= since.date())
        .group_by(c.day, c.cause)
        .order_by(c.day, c.cause)
    )
    days: dict[date, tuple[dict[str, int], int]] = {}
    for day, cause, sessions, seconds in connection.execute(query):
        counts, total = days.get(day, ({}, 0))
        days[day] = {**counts, cause: int(sessions)}, total + int(seconds)
    return [DeletedOnDay(day, counts, seconds) for day, (counts, seconds) in days.items()]


def _usage(connection: sa.Connection, policy: str, since: datetime) -> tuple[dict[int, int], dict[str, int]]:
    u = usage.c
    ours = sa.and_(u.policy == policy, u.day >= since.date())

    def total(column: sa.Column[Any]) -> Sequence[Any]:
        return connection.execute(sa.select(column, sa.func.sum(u.begun)).where(ours).group_by(column)).all()

    hours = {int(hour): int(count) for hour, count in sorted(total(u.hour), key=lambda row: int(row[0]))}
    clients = sorted(total(u.client), key=lambda row: (-int(row[1]), str(row[0])))
    return hours, {str(client): int(count) for client, count in clients}


def in_utc(moment: datetime) -> datetime:
    """A time from the statistics in UTC; databases without time zones store UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
