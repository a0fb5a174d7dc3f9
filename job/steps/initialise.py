"""R2.1: open the stores, refuse what does not fit, take the exclusive lock, load the stored settings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from job.clock import RunClock
from job.database.connect import create_engine, parse_url
from job.database.history import HistoryTable
from job.database.link import Link
from job.database.lock import lock_for
from job.database.preflight import check_table
from job.database.schema import history, settings, statistics
from job.database.store import SessionDatabase, clock_offset
from job.database.table import MappedTable
from job.errors import ClockSkewError, ConfigurationError
from job.lifetime import Cutoffs, cutoffs, narrowest
from job.redisstore.connect import connect as connect_redis
from job.redisstore.store import RedisStore
from job.retry import Retrier
from policy.names import REDIS_URL_ENV
from policy.presets import SessionTable, resolve_table
from policy.profiles import Lifetime, resolve_lifetime
from policy.spec import SessionPolicySpec

# SQLite takes 32,766 parameters in a statement, unless it was built otherwise.
_LARGEST_BATCH = {"sqlite": 30_000}


@dataclass(frozen=True, slots=True)
class Urls:
    """Where the stores are. These hold passwords: they never go into a log, a report or a message."""

    database: str
    redis: str | None = None

    def __repr__(self) -> str:
        return "Urls(…)"


@dataclass(frozen=True, slots=True)
class Opened:
    """The stores of a run, checked and locked.

    Attributes:
        link: the database connection; closing it releases the lock.
        database: the session table.
        redis: Redis, where the policy has one.
        cutoffs: before when a session has expired: the policy's timeouts, narrowed by the stored settings.
        max_sessions: likewise; 0 for any number.
        keeps_statistics: whether the statistics tables are there and wanted.
    """

    link: Link
    database: SessionDatabase
    redis: RedisStore | None
    cutoffs: Cutoffs
    max_sessions: int
    keeps_statistics: bool


def initialise(spec: SessionPolicySpec, urls: Urls, clock: RunClock, log: Any) -> Opened:
    """Opens the stores of a run.

    Raises:
        ConfigurationError: a URL, the table or a column is not what the policy says.
        DatabaseUnavailableError, RedisUnavailableError: a store cannot be reached.
        ClockSkewError: clocks differ too much.
        LockHeldError: another run is at work on this table.
    """
    if spec.stores.redis and not urls.redis:
        raise ConfigurationError(f"the policy has stores.redis, but {REDIS_URL_ENV} is not set")
    url = parse_url(urls.database)
    engine = create_engine(url)
    link = Link(engine, spec.retries.database, clock, log)
    redis = None
    try:
        table = link.inspect(lambda inspector: check_table(inspector, resolve_table(spec.stores.database)))
        redis = (
            RedisStore(
                connect_redis(urls.redis, spec.stores.redis),
                spec.stores.redis,
                spec.retries.redis,
                clock,
                log,
            )
            if spec.stores.redis and urls.redis
            else None
        )
        offset = link.transaction(clock_offset)
        _check_clocks(offset, redis, spec.safety.clock_skew_seconds)
        keeps_statistics = spec.statistics.enabled and _has_tables(link, log)
        lifetime, max_sessions = _apply_settings(spec, link)
        link.lock(lock_for(engine.dialect, url.database, _full_name(table.table)))
        now = datetime.now(UTC) + offset
        limits = cutoffs(now, lifetime, spec.safety.clock_skew_seconds)
        database = SessionDatabase(
            link=link,
            table=table,
            cutoffs=limits,
            batch_size=min(spec.cleanup_batch_size, _LARGEST_BATCH.get(engine.dialect.name, spec.cleanup_batch_size)),
            deletion_retrier=lambda errors: Retrier(spec.retries.deletion, errors, clock, log, "deletion"),
            grace_seconds=spec.sync.grace_seconds,
            history=HistoryTable(now) if keeps_statistics else None,
        )
    except BaseException:
        link.close()
        if redis:
            redis.close()
        raise
    _warn(spec, table, log)
    return Opened(link, database, redis, limits, max_sessions, keeps_statistics)


def _full_name(table: SessionTable) -> str:
    # By hand: SQLAlchemy would double a %, for drivers that format statements; this is a parameter.
    return ".".join('"' + part.replace('"', '""') + '"' for part in (table.schema, table.name) if part)


def _check_clocks(database_offset: timedelta, redis: RedisStore | None, limit_seconds: int) -> None:
    ahead = {"the container": timedelta(0), "the database": database_offset}
    if redis:
        before = datetime.now(UTC)
        theirs = redis.server_time()
        ahead["Redis"] = theirs - (before + (datetime.now(UTC) - before) / 2)
    slowest, fastest = min(ahead, key=lambda k: ahead[k]), max(ahead, key=lambda k: ahead[k])
    apart = (ahead[fastest] - ahead[slowest]).total_seconds()
    if apart > limit_seconds:
        raise ClockSkewError(
            f"the clock of {fastest} is {apart:.1f} s ahead of that of {slowest}, over safety.clockSkewSeconds "
            f"({limit_seconds}): correct the clocks; nothing was deleted"
        )


def _has_tables(link: Link, log: Any) -> bool:
    missing = link.inspect(lambda i: [t.name for t in (statistics, history) if not i.has_table(t.name)])
    if missing:
        log.warning(
            "statistics off",
            missingTables=missing,
            remedy="run `session-policy init`, or set statistics.enabled false",
        )
    return not missing


def _apply_settings(spec: SessionPolicySpec, link: Link) -> tuple[Lifetime, int]:
    """The policy's timeouts and limit, narrowed by the settings stored for everybody (TBL-068)."""
    lifetime, limit = resolve_lifetime(spec), spec.max_concurrent_sessions
    if not link.inspect(lambda inspector: inspector.has_table(settings.name)):
        return lifetime, limit
    query = sa.select(settings).where(settings.c.scope == "Global")
    for row in link.transaction(lambda c: c.execute(query).mappings().all()):
        lifetime = narrowest(lifetime, row["idle_timeout_seconds"], row["absolute_timeout_seconds"])
        if row["max_sessions"]:
            limit = min(limit, row["max_sessions"]) if limit else row["max_sessions"]
    return lifetime, limit


def _warn(spec: SessionPolicySpec, table: MappedTable, log: Any) -> None:
    if table.user_id is None and spec.max_concurrent_sessions:
        log.info("limit per user off", because="no column is mapped to userId")
