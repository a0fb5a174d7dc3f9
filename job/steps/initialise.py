"""R2.1: open the stores, refuse what does not fit, take the exclusive lock, load the stored settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from job.logs.logs import SessionLog
from policy.lifetime import resolve_lifetime
from policy.names import DATABASE_URL_ENV, REDIS_URL_ENV
from policy.presets import resolve_table
from policy.spec import CleanupStrategy, OnExceed, SessionPolicySpec
from stores.model.cutoffs import Cutoffs, cutoffs
from stores.model.errors import ClockSkewError, ConfigurationError
from stores.model.stored_settings import Setting, narrow
from stores.redis.connection.connect import connect as connect_redis
from stores.redis.store import RedisStore
from stores.sql.connection.connect import create_engine, parse_url
from stores.sql.connection.run_connection import RunConnection
from stores.sql.dialects.lock import Lock
from stores.sql.mapping.expiry import load_settings
from stores.sql.mapping.findings import Severity
from stores.sql.mapping.preflight import Preflight, examine
from stores.sql.mapping.table import MappedTable
from stores.sql.removal.history import DeletionRecorder, HistoryTable
from stores.sql.schema.tables import history, settings, statistics, usage
from stores.sql.store import SessionDatabase, clock_offset
from stores.sql.table_statistics import layout_of
from stores.waiting.clock import RunClock
from stores.waiting.retry import Retrier


@dataclass(frozen=True, slots=True)
class Urls:
    """Where the stores are. These hold passwords: they never go into a log, a report or a message."""

    database: str | None
    redis: str | None = None

    def __repr__(self) -> str:
        return "Urls(…)"


@dataclass(frozen=True, slots=True)
class Opened:
    """The stores of a run, checked and locked.

    Attributes:
        connection: the database connection; closing it releases the lock.
        database: the session table.
        redis: Redis, where the policy has one.
        cutoffs: before when a session has expired: the policy's timeouts, narrowed by the stored settings.
        max_sessions: likewise; 0 for any number.
        settings: the stored settings, for their verification.
        keeps_statistics: whether the statistics tables are there and wanted.
        moment: the run's present, by the database's clock.
        lock: the exclusive lock of the session table, held or not.
        records: what is written in each transaction that deletes sessions.
    """

    connection: RunConnection
    database: SessionDatabase
    redis: RedisStore | None
    cutoffs: Cutoffs
    max_sessions: int
    settings: Sequence[Setting]
    keeps_statistics: bool
    moment: datetime
    lock: Lock
    records: DeletionRecorder


def initialise(
    spec: SessionPolicySpec,
    urls: Urls,
    clock: RunClock,
    log: Any,
    *,
    exclusive: bool = True,
    audit: SessionLog | None = None,
    at: datetime | None = None,
) -> Opened:
    """Opens the stores of a run or, without the exclusive lock, to look only, or to help.

    Args:
        spec: what the run obeys.
        urls: where the stores are.
        clock: of the run.
        log: of the run.
        exclusive: whether to take the lock.
        audit: the log of single deleted sessions; None for none.
        at: the present of the run that is helped, by the database's clock.

    Raises:
        ConfigurationError: a URL, the table or a column is not what the policy says.
        DatabaseUnavailableError, RedisUnavailableError: a store cannot be reached.
        ClockSkewError: clocks differ too much.
        LockHeldError: another run is at work on this table.
    """
    if spec.stores.redis and not urls.redis:
        raise ConfigurationError(f"the policy has stores.redis, but {REDIS_URL_ENV} is not set")
    store = spec.stores.database
    if store is None or not urls.database:
        raise ConfigurationError(f"the policy has stores.database, but {DATABASE_URL_ENV} is not set")
    url = parse_url(urls.database)
    engine = create_engine(url)
    connection = RunConnection(engine, spec.retries.database, clock, log)
    redis = None
    try:
        wanted = resolve_table(store)
        preflight = connection.inspect(lambda inspector: examine(inspector, wanted))
        table = preflight.require()
        _check_limit(spec, table)
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
        offset = connection.transaction(clock_offset)
        _check_clocks(offset, redis, spec.safety.clock_skew_seconds)
        keeps_statistics = spec.statistics.enabled and _has_tables(connection, log)
        stored = _load_settings(connection)
        narrowing = narrow(resolve_lifetime(spec), spec.max_concurrent_sessions, stored)
        lock = connection.dialect.lock(url.database, table.table.schema, table.table.name)
        if exclusive:
            connection.lock(lock)
        now = datetime.now(UTC) + offset
        now = min(at, now) if at else now
        limits = cutoffs(now, narrowing.lifetime, spec.safety.clock_skew_seconds)
        records = DeletionRecorder(HistoryTable(now) if keeps_statistics else None)
        database = SessionDatabase(
            connection=connection,
            table=table,
            cutoffs=limits,
            layout=connection.transaction(lambda connection: layout_of(connection, table)),
            cleanup=spec.cleanup,
            batch_size=spec.cleanup_batch_size,
            deletion_retrier=lambda errors: Retrier(spec.retries.deletion, errors, clock, log, "deletion"),
            grace_seconds=spec.sync.grace_seconds,
            recorder=records,
            narrowing=narrowing,
            audit=audit,
            alone=spec.job.parallelism == 1,
        )
        if spec.cleanup.strategy is not CleanupStrategy.AUTO:
            database.strategy()  # refused before anything is done
    except BaseException:
        connection.close()
        if redis:
            redis.close()
        raise
    _warn(spec, table, log)
    _tell(preflight, log)
    return Opened(
        connection=connection,
        database=database,
        redis=redis,
        cutoffs=limits,
        max_sessions=narrowing.effective_limit,
        settings=stored,
        keeps_statistics=keeps_statistics,
        moment=now,
        lock=lock,
        records=records,
    )


def _check_limit(spec: SessionPolicySpec, table: MappedTable) -> None:
    evicting = spec.concurrency.on_exceed
    if not spec.max_concurrent_sessions or table.user_id is None or table.created_at:
        return
    if evicting in (OnExceed.EVICT_OLDEST, OnExceed.EVICT_NEWEST):
        raise ConfigurationError(
            f"concurrency.onExceed {evicting} needs to know when a session began, which this table does not tell: "
            "choose EvictLeastRecentlyUsed or Report"
        )


def _check_clocks(database_offset: timedelta, redis: RedisStore | None, limit_seconds: int) -> None:
    ahead = {"the container": timedelta(0), "the database": database_offset}
    if redis:
        redis.server_time()  # connects, perhaps after some attempts, which the clock must not be blamed for
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


def _has_tables(connection: RunConnection, log: Any) -> bool:
    missing = connection.inspect(lambda i: [t.name for t in (statistics, history, usage) if not i.has_table(t.name)])
    if missing:
        log.warning(
            "statistics off",
            missingTables=missing,
            remedy="run `session-policy init`, or set statistics.enabled false",
        )
    return not missing


def _load_settings(connection: RunConnection) -> list[Setting]:
    """The settings that narrow the policy (TBL-068); none where there is no such table."""
    if not connection.inspect(lambda inspector: inspector.has_table(settings.name)):
        return []
    return connection.transaction(load_settings)


def _warn(spec: SessionPolicySpec, table: MappedTable, log: Any) -> None:
    if table.user_id is None and spec.max_concurrent_sessions:
        log.info("limit per user off", because="no column is mapped to userId")


def _tell(preflight: Preflight, log: Any) -> None:
    for finding in preflight.findings:
        tell = log.warning if finding.severity is Severity.WARNING else log.info
        tell("preflight", field=finding.field, found=finding.message, remedy=finding.remedy)
