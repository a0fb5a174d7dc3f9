"""R5: measures memory and hit ratio of Redis, and how fast sessions are created."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from job.alerts.problems import Problem
from job.steps.context import RunContext
from job.steps.overview import Overview
from job.steps.thresholds import CreationRate, RedisStats, creation_problems, parse_info, redis_problems
from stores.model.errors import ConfigurationError
from stores.redis.connection.server import RedisServer
from stores.sql.connection.run_connection import RunConnection
from stores.sql.schema.tables import statistics


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was measured.

    Attributes:
        redis: what Redis says of itself; None where that is not known.
        creation: sessions created since the previous run; None where that is not known.
        problems: what is over, or under, the policy's thresholds.
    """

    redis: RedisStats | None = None
    creation: CreationRate | None = None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class PreviousRun:
    """A run before this one.

    Attributes:
        started: when.
        created: sessions that were created between the run before it and its start; None where that is not known.
    """

    started: datetime
    created: int | None


def previous_runs(context: RunContext, connection: RunConnection | None, run_id: str) -> list[PreviousRun]:
    """The last two runs of the policy, the newest first.

    Args:
        context: the run.
        connection: where the statistics are kept; None where none are.
        run_id: of this run; a row that an earlier attempt of it has left does not count.
    """
    if connection is None:
        return []
    metadata = context.policy.metadata
    query = (
        sa.select(statistics.c.started_at, statistics.c.created)
        .where(statistics.c.policy == f"{metadata.namespace}/{metadata.name}", statistics.c.run_id != run_id)
        .order_by(statistics.c.started_at.desc())
        .limit(2)
    )
    return [PreviousRun(_aware(row[0]), row[1]) for row in connection.transaction(lambda c: c.execute(query).all())]


def measure(context: RunContext, previous: Sequence[PreviousRun], overview: Overview) -> Measurements:
    """Measures Redis and the rate of new sessions, and compares both with the policy's thresholds.

    Called before anything is deleted and before the run's own look-ups count in Redis.

    Args:
        context: the run.
        previous: the runs before, the newest first.
        overview: what was counted of the table, since the newest of them among other things.
    """
    thresholds = context.spec.alerts.thresholds
    problems: list[Problem] = []
    redis = read_redis(context.redis.server) if context.redis else None
    if redis:
        problems += redis_problems(redis, thresholds)
        _log_redis(context, redis)
    now, before = _creation_rates(previous, overview)
    problems += creation_problems(now, before, thresholds)
    if now:
        context.log.info("sessions created", sessions=now.sessions, perMinute=round(now.per_second * 60, 2))
    return Measurements(redis, now, tuple(problems))


def measure_redis(context: RunContext, server: RedisServer) -> Measurements:
    """Measures a Redis without a database; nothing where its user may not call INFO, which no other step needs."""
    try:
        redis = read_redis(server)
    except ConfigurationError:
        context.log.info("redis memory and hit ratio", because="Redis does not let this user call INFO")
        return Measurements()
    _log_redis(context, redis)
    return Measurements(redis, None, tuple(redis_problems(redis, context.spec.alerts.thresholds)))


def read_redis(server: RedisServer) -> RedisStats:
    """What INFO answers.

    Raises:
        RedisUnavailableError, ConfigurationError: Redis cannot be reached, or refuses INFO.
    """
    return parse_info([info for section in ("memory", "stats") for info in server.infos(section)])


def _log_redis(context: RunContext, redis: RedisStats) -> None:
    percent = redis.hit_percent
    context.log.info(
        "redis memory and hit ratio",
        memoryBytes=redis.memory_bytes,
        hitPercent=None if percent is None else round(percent, 1),
    )


def _creation_rates(
    previous: Sequence[PreviousRun], overview: Overview
) -> tuple[CreationRate | None, CreationRate | None]:
    """Since the previous run, and between the two runs before."""
    if not previous:
        return None, None
    last = previous[0]
    sessions = overview.begun_since(last.started)
    seconds = (overview.at - overview.offset - last.started).total_seconds()
    now = None if sessions is None else CreationRate(sessions, seconds)
    if len(previous) == 1 or last.created is None:
        return now, None
    return now, CreationRate(last.created, (last.started - previous[1].started).total_seconds())


def _aware(moment: datetime) -> datetime:
    """Some databases give times back without the zone, UTC, that they were written in."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
