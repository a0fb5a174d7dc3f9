"""R5: memory and hit ratio of Redis, and how fast sessions are created, against the policy's thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from job.alerts.problems import Problem
from job.context import RunContext
from job.database.link import Link
from job.database.queries import RuleQueries
from job.database.schema import statistics
from job.errors import ConfigurationError
from job.redisstore.server import RedisServer
from job.vitals import Creation, RedisVitals, creation_problems, read_info, redis_problems


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


def step(context: RunContext, queries: RuleQueries, link: Link | None, run_id: str) -> Vitals:
    """Measures, before anything is deleted and before the run's own look-ups count in Redis.

    Args:
        context: the run.
        queries: of the session table.
        link: where the statistics are kept; None where none are.
        run_id: of this run; a row that an earlier attempt of it has left does not count.
    """
    thresholds = context.spec.alerts.thresholds
    problems: list[Problem] = []
    vitals = read_redis(context.redis.server) if context.redis else None
    if vitals:
        problems += redis_problems(vitals, thresholds)
        _tell(context, vitals)
    now, before = _creation(context, queries, link, run_id) if link else (None, None)
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


def _creation(
    context: RunContext, queries: RuleQueries, link: Link, run_id: str
) -> tuple[Creation | None, Creation | None]:
    """Since the run before, and in the stretch before that."""
    metadata = context.policy.metadata
    query = (
        sa.select(statistics.c.started_at, statistics.c.created)
        .where(statistics.c.policy == f"{metadata.namespace}/{metadata.name}", statistics.c.run_id != run_id)
        .order_by(statistics.c.started_at.desc())
        .limit(2)
    )
    rows = [(_aware(row[0]), row[1]) for row in link.transaction(lambda c: c.execute(query).all())]
    if not rows:
        return None, None
    last, created = rows[0]
    offset = queries.clock_offset()
    sessions = queries.created_since(last + offset)
    now = None if sessions is None else Creation(sessions, (datetime.now(UTC) - last).total_seconds())
    known = len(rows) > 1 and created is not None
    return now, Creation(created, (last - rows[1][0]).total_seconds()) if known else None


def _aware(moment: datetime) -> datetime:
    """Some databases give times back without the zone, UTC, that they were written in."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
