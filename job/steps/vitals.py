"""R5: memory and hit ratio of Redis, and how fast sessions are created, against the policy's thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from job.alerts.problems import Problem
from job.steps.context import RunContext
from job.steps.overview import Overview
from job.steps.vitals_thresholds import Creation, RedisVitals, creation_problems, read_info, redis_problems
from stores.model.errors import ConfigurationError
from stores.redis.connection.server import RedisServer
from stores.sql.connection.run_connection import RunConnection
from stores.sql.schema.tables import statistics


@dataclass(frozen=True, slots=True)
class Vitals:
    """What was measured.

    Attributes:
        redis: what Redis says of itself; None without Redis.
        creation: sessions begun since the run before; None where that is not known.
        problems: what is worth an alert.
    """

    redis: RedisVitals | None = None
    creation: Creation | None = None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Earlier:
    """A run before this one.

    Attributes:
        started: when.
        created: sessions that had begun since the run before it; None where that is not known.
    """

    started: datetime
    created: int | None


def earlier_runs(context: RunContext, connection: RunConnection | None, run_id: str) -> list[Earlier]:
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
    return [Earlier(_aware(row[0]), row[1]) for row in connection.transaction(lambda c: c.execute(query).all())]


def step(context: RunContext, earlier: Sequence[Earlier], overview: Overview) -> Vitals:
    """Measures, before anything is deleted and before the run's own look-ups count in Redis.

    Args:
        context: the run.
        earlier: the runs before, the newest first.
        overview: what was counted of the table, since the newest of them among other things.
    """
    thresholds = context.spec.alerts.thresholds
    problems: list[Problem] = []
    vitals = read_redis(context.redis.server) if context.redis else None
    if vitals:
        problems += redis_problems(vitals, thresholds)
        _tell(context, vitals)
    now, before = _creation(earlier, overview)
    problems += creation_problems(now, before, thresholds)
    if now:
        context.log.info("created", sessions=now.sessions, perMinute=round(now.per_second * 60, 2))
    return Vitals(vitals, now, tuple(problems))


def step_on_redis(context: RunContext, server: RedisServer) -> Vitals:
    """Measures Redis alone. Its user may have no right to INFO, which nothing else needs: then nothing is known."""
    try:
        found = read_redis(server)
    except ConfigurationError:
        context.log.info("redis vitals", because="Redis does not let this user call INFO")
        return Vitals()
    _tell(context, found)
    return Vitals(found, None, tuple(redis_problems(found, context.spec.alerts.thresholds)))


def read_redis(server: RedisServer) -> RedisVitals:
    """What Redis says of itself.

    Raises:
        RedisUnavailableError, ConfigurationError: it cannot be reached, or refuses INFO.
    """
    return read_info([info for section in ("memory", "stats") for info in server.infos(section)])


def _tell(context: RunContext, vitals: RedisVitals) -> None:
    percent = vitals.hit_percent
    context.log.info(
        "redis vitals",
        memoryBytes=vitals.memory_bytes,
        hitPercent=None if percent is None else round(percent, 1),
    )


def _creation(earlier: Sequence[Earlier], overview: Overview) -> tuple[Creation | None, Creation | None]:
    """Since the run before, and in the stretch before that."""
    if not earlier:
        return None, None
    last = earlier[0]
    sessions = overview.begun_since(last.started)
    seconds = (overview.at - overview.offset - last.started).total_seconds()
    now = None if sessions is None else Creation(sessions, seconds)
    if len(earlier) == 1 or last.created is None:
        return now, None
    return now, Creation(last.created, (last.started - earlier[1].started).total_seconds())


def _aware(moment: datetime) -> datetime:
    """Some databases give times back without the zone, UTC, that they were written in."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
