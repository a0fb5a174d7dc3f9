"""R2.1: open the stores, refuse what does not fit, take the exclusive lock, load the stored settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from job.logs.run_logs import HashedSessionLog
from policy.lifetime import resolve_lifetime
from policy.names import DATABASE_URL_ENV, REDIS_URL_ENV
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
from stores.sql.mapping.product_tables import require_product_tables
from stores.sql.mapping.table import MappedTable
from stores.sql.removal.history import DeletionRecorder, HistoryTable
from stores.sql.schema.tables import alerts, history, settings, statistics, usage, work
from stores.sql.store import SessionDatabase, clock_offset
from stores.sql.table_statistics import layout_of
from stores.waiting.clock import RunClock
from stores.waiting.retry import Retrier


@dataclass(frozen=True, slots=True)
class Urls:
    """URLs of the stores. They hold passwords: they never go into a log, a report or a message."""

    database: str | None
    redis: str | None = None

    def __repr__(self) -> str:
        return "Urls(…)"


@dataclass(frozen=True, slots=True)
class RunStores:
    """The stores of a run, checked and, where it was asked for, locked.

    Attributes:
        connection: to the database; closing it releases the lock.
        database: the session table.
        redis: Redis, where the policy has one.
        cutoffs: before when a session has expired: the policy's timeouts, narrowed by the stored settings.
        max_sessions: sessions a user may have, narrowed likewise; 0 for any number.
        settings: the stored settings, for their verification.
        keeps_statistics: whether the statistics tables are there and wanted.
        moment: the time that the run judges by, by the database's clock.
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

    def close(self) -> None:
        """Closes the connections, which releases the lock."""
        self.connection.close()
        if self.redis:
            self.redis.close()


def initialise(
    spec: SessionPolicySpec,
    urls: Urls,
    clock: RunClock,
    log: Any,
    *,
    exclusive: bool = True,
    audit: HashedSessionLog | None = None,
    at: datetime | None = None,
) -> RunStores:
    """Opens the stores of a run: connects, checks them, takes the lock, puts together what the steps work on.

    Args:
        spec: what the run obeys.
        urls: where the stores are.
        clock: of the run.
        log: of the run.
        exclusive: whether to take the lock; without it, sessions may only be looked at, or deleted for the leader that
            has it.
        audit: the log of single deleted sessions; None for none.
        at: the time that the leader's run judges by, by the database's clock; None for now.

    Raises:
        ConfigurationError: a URL, the table or a column is not what the policy says.
        TableVersionError: the product's own tables are older or newer than this release.
        DatabaseUnavailableError, RedisUnavailableError: a store cannot be reached.
        ClockSkewError: clocks differ too much.
        LockHeldError: another run holds the lock.
    """
    connections = _connect(spec, urls, clock, log)
    try:
        checked = _check(spec, connections)
        lock = _lock(connections, checked.table, exclusive=exclusive)
        stores = _assemble(connections, checked, lock, audit, at)
        if spec.cleanup.strategy is not CleanupStrategy.AUTO:
            stores.database.strategy()  # refused before anything is done
    except BaseException:
        connections.close()
        raise
    _log_findings(spec, checked, log)
    return stores


@dataclass(frozen=True, slots=True)
class _Connections:
    """To the stores of a policy. Nothing has been sent yet.

    Attributes:
        spec: the policy's.
        clock: of the run.
        log: of the run.
        url: of the database.
        database: the connection to it.
        redis: where the policy has one.
    """

    spec: SessionPolicySpec
    clock: RunClock
    log: Any
    url: sa.URL
    database: RunConnection
    redis: RedisStore | None

    def close(self) -> None:
        self.database.close()
        if self.redis:
            self.redis.close()


@dataclass(frozen=True, slots=True)
class _Checked:
    """What was found right about the stores.

    Attributes:
        preflight: what is worth saying about the session table.
        table: the session table.
        offset: how far the database's clock is ahead of this process's.
        keeps_statistics: whether the statistics tables are there and wanted.
        settings: the stored settings.
    """

    preflight: Preflight
    table: MappedTable
    offset: timedelta
    keeps_statistics: bool
    settings: Sequence[Setting]


def _connect(spec: SessionPolicySpec, urls: Urls, clock: RunClock, log: Any) -> _Connections:
    if spec.stores.redis and not urls.redis:
        raise ConfigurationError(f"the policy has stores.redis, but {REDIS_URL_ENV} is not set")
    if spec.stores.database is None or not urls.database:
        raise ConfigurationError(f"the policy has stores.database, but {DATABASE_URL_ENV} is not set")
    url = parse_url(urls.database)
    database = RunConnection(create_engine(url), spec.retries.database, clock, log)
    redis = None
    if spec.stores.redis and urls.redis:
        try:
            link = connect_redis(urls.redis, spec.stores.redis)
        except BaseException:
            database.close()
            raise
        redis = RedisStore(link, spec.stores.redis, spec.retries.redis, clock, log)
    return _Connections(spec, clock, log, url, database, redis)


def _check(spec: SessionPolicySpec, connections: _Connections) -> _Checked:
    assert spec.stores.database is not None  # else there is no connection
    database, wanted = connections.database, spec.stores.database.session_table
    preflight = database.inspect(lambda inspector: examine(inspector, wanted))
    table = preflight.require()
    if finding := database.transaction(lambda connection: require_product_tables(connection, tables_of(spec))):
        preflight.findings.append(finding)
    _check_limit(spec, table)
    offset = database.transaction(clock_offset)
    _check_clocks(offset, connections.redis, spec.safety.clock_skew_seconds)
    keeps_statistics = spec.statistics.enabled and _has_tables(database, connections.log)
    return _Checked(preflight, table, offset, keeps_statistics, _load_settings(database))


def _lock(connections: _Connections, table: MappedTable, *, exclusive: bool) -> Lock:
    """The exclusive lock of the session table, taken or only named."""
    database = connections.database
    lock = database.dialect.lock(connections.url.database, table.table.schema, table.table.name)
    if exclusive:
        database.lock(lock)
    return lock


def _assemble(
    connections: _Connections, checked: _Checked, lock: Lock, audit: HashedSessionLog | None, at: datetime | None
) -> RunStores:
    spec, clock, log = connections.spec, connections.clock, connections.log
    database, table = connections.database, checked.table
    narrowing = narrow(resolve_lifetime(spec), spec.max_concurrent_sessions, checked.settings)
    now = datetime.now(UTC) + checked.offset
    moment = min(at, now) if at else now
    limits = cutoffs(moment, narrowing.lifetime, spec.safety.clock_skew_seconds)
    records = DeletionRecorder(HistoryTable(moment) if checked.keeps_statistics else None)
    return RunStores(
        connection=database,
        database=SessionDatabase(
            connection=database,
            table=table,
            cutoffs=limits,
            layout=database.transaction(lambda connection: layout_of(connection, table)),
            cleanup=spec.cleanup,
            batch_size=spec.cleanup_batch_size,
            deletion_retrier=lambda errors: Retrier(spec.retries.deletion, errors, clock, log, "deletion"),
            grace_seconds=spec.sync.grace_seconds,
            recorder=records,
            narrowing=narrowing,
            audit=audit,
            alone=spec.job.parallelism == 1,
        ),
        redis=connections.redis,
        cutoffs=limits,
        max_sessions=narrowing.effective_limit,
        settings=checked.settings,
        keeps_statistics=checked.keeps_statistics,
        moment=moment,
        lock=lock,
        records=records,
    )


def tables_of(spec: SessionPolicySpec) -> list[sa.Table]:
    """Those of the product's own tables that a run of the policy reads or writes, if they exist."""
    tables = [settings]
    if spec.statistics.enabled:
        tables += [statistics, history, usage]
    if spec.alerts.operations or spec.alerts.security:
        tables.append(alerts)
    if spec.job.parallelism > 1:
        tables.append(work)
    return tables


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
    wanted = (statistics, history, usage)
    missing = connection.inspect(lambda inspector: [t.name for t in wanted if not inspector.has_table(t.name)])
    if missing:
        log.warning(
            "statistics disabled",
            missingTables=missing,
            remedy="run `session-policy init`, or set statistics.enabled false",
        )
    return not missing


def _load_settings(connection: RunConnection) -> list[Setting]:
    """The settings that narrow the policy (TBL-068); none where there is no such table."""
    if not connection.inspect(lambda inspector: inspector.has_table(settings.name)):
        return []
    return connection.transaction(load_settings)


def _log_findings(spec: SessionPolicySpec, checked: _Checked, log: Any) -> None:
    if checked.table.user_id is None and spec.max_concurrent_sessions:
        log.info("concurrency limit skipped", because="no column is mapped to userId")
    for finding in checked.preflight.findings:
        write = log.warning if finding.severity is Severity.WARNING else log.info
        write("preflight finding", field=finding.field, found=finding.message, remedy=finding.remedy)
