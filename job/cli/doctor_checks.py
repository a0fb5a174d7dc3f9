"""Checks a policy, its stores and its alert channels, without a run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from job.alerts.channels import Channels, url_problem
from job.logs.id_hasher import SHORT_KEY, SHORT_KEY_REMEDY, hash_key, is_short_key
from job.revocation.open_stores import open_stores, with_short_retries
from job.steps import settings_verification
from job.steps.abnormal import mapped_fields
from job.steps.context import RunContext
from job.steps.initialise import RunStores, tables_of
from job.steps.progress import NoProgress
from policy.manifest import SessionPolicy
from policy.names import DATABASE_URL_ENV, LOG_DIRECTORY_ENV, REDIS_URL_ENV
from stores.model.errors import RunError
from stores.model.tally import Tally
from stores.redis.connection.connect import connect
from stores.redis.store import RedisStore
from stores.rules.table import missing_fields
from stores.sql.connection.connect import create_engine, parse_url
from stores.sql.connection.run_connection import RunConnection
from stores.sql.mapping.findings import Finding, Severity
from stores.sql.mapping.preflight import examine
from stores.sql.mapping.product_tables import examine_product_tables
from stores.sql.queries import RuleQueries
from stores.sql.schema.tables import alerts, history, statistics
from stores.waiting.clock import RunClock


def check_policy(
    policy: SessionPolicy, database_url: str | None, redis_url: str | None, environment: Mapping[str, str], log: Any
) -> list[Finding]:
    """Everything wrong or notable about a policy and its stores; errors first.

    Args:
        policy: the policy.
        database_url: of its database.
        redis_url: of its Redis.
        environment: with alert URLs, hash key and log directory, as in a Pod.
        log: for retries.
    """
    policy = with_short_retries(policy)
    found = [
        *_check_database(policy, database_url, log),
        *_check_redis(policy, redis_url, log),
        *_check_alerts(policy, environment),
        *_check_logs(policy, environment),
    ]
    if not any(f.severity is Severity.ERROR and f.field.startswith("stores") for f in found):
        found += _check_together(policy, database_url, redis_url, log)
    order = list(Severity)
    return sorted(found, key=lambda finding: order.index(finding.severity))


def _error(field: str, error: RunError) -> Finding:
    return Finding(Severity.ERROR, field, str(error))


def _check_database(policy: SessionPolicy, url: str | None, log: Any) -> Iterator[Finding]:
    store = policy.spec.stores.database
    if store is None:
        return
    field = "stores.database"
    if not url:
        yield Finding(Severity.ERROR, field, "no database URL", f"set {DATABASE_URL_ENV} or pass --database-url")
        return
    connection: RunConnection | None = None
    try:
        connection = RunConnection(create_engine(parse_url(url)), policy.spec.retries.database, RunClock(60), log)
        for finding in connection.inspect(lambda inspector: examine(inspector, store.session_table)).findings:
            yield Finding(finding.severity, f"{field}.table.{finding.field}", finding.message, finding.remedy)
        if version := connection.transaction(lambda c: examine_product_tables(c, tables_of(policy.spec))):
            yield version
        yield from _check_tables(policy, connection)
    except RunError as error:
        yield _error(field, error)
    finally:
        if connection:
            connection.close()


def _check_tables(policy: SessionPolicy, connection: RunConnection) -> Iterator[Finding]:
    wanted: dict[str, list[sa.Table]] = {
        "statistics": [statistics, history] if policy.spec.statistics.enabled else [],
        "alerts": [alerts] if policy.spec.alerts.operations or policy.spec.alerts.security else [],
    }
    for field, tables in wanted.items():
        missing = connection.inspect(partial(_missing, tables))
        if missing:
            yield Finding(Severity.WARNING, field, f"missing tables: {', '.join(missing)}", "run `session-policy init`")


def _missing(tables: Sequence[sa.Table], inspector: sa.Inspector) -> list[str]:
    return [table.name for table in tables if not inspector.has_table(table.name)]


def _check_redis(policy: SessionPolicy, url: str | None, log: Any) -> Iterator[Finding]:
    store = policy.spec.stores.redis
    if store is None:
        return
    if not url:
        yield Finding(Severity.ERROR, "stores.redis", "no Redis URL", f"set {REDIS_URL_ENV} or pass --redis-url")
        return
    try:
        redis = RedisStore(connect(url, store), store, policy.spec.retries.redis, RunClock(60), log)
        try:
            redis.server_time()
        finally:
            redis.close()
    except RunError as error:
        yield _error("stores.redis", error)


def _check_alerts(policy: SessionPolicy, environment: Mapping[str, str]) -> Iterator[Finding]:
    wanted = policy.spec.alerts
    channels = Channels.from_environment(environment)
    for audience, urls in channels.urls.items():
        for number, url in enumerate(urls, start=1):
            if why := url_problem(url):
                yield Finding(
                    Severity.WARNING, f"alerts.{audience}.urlsFrom", f"URL {number}: {why}", "correct it in the Secret"
                )
    for audience_name, channel in (("operations", wanted.operations), ("security", wanted.security)):
        if channel and audience_name not in channels.urls:
            yield Finding(
                Severity.INFO,
                f"alerts.{audience_name}",
                "no URLs are set here, so they are not checked",
                f"set ALERT_{audience_name.upper()}_URLS as in the Secret",
            )


def _check_logs(policy: SessionPolicy, environment: Mapping[str, str]) -> Iterator[Finding]:
    key = hash_key(environment)
    if is_short_key(key):
        yield Finding(Severity.WARNING, "logs.hashKeyFrom", SHORT_KEY, SHORT_KEY_REMEDY)
    if policy.spec.logs.hash_key_from is None and not key:
        yield Finding(
            Severity.INFO,
            "logs.hashKeyFrom",
            "no hash key is set: each run hashes ids with a random key, so sessions cannot be followed across runs",
            "put a random key into a Secret and name it in logs.hashKeyFrom",
        )
    directory = environment.get(LOG_DIRECTORY_ENV)
    if directory and not (Path(directory).is_dir() and os.access(directory, os.W_OK | os.X_OK)):
        yield Finding(Severity.WARNING, "logs.volumeClaim", f"{LOG_DIRECTORY_ENV} is not a writable directory")


def _check_together(
    policy: SessionPolicy, database_url: str | None, redis_url: str | None, log: Any
) -> Iterator[Finding]:
    """What needs all stores open: clocks, rules that cannot be evaluated, stored settings."""
    try:
        with open_stores(policy, database_url, redis_url, log, exclusive=False) as stores:
            if stores.run_stores:
                yield from _check_rules(policy, stores.run_stores)
                yield from _check_settings(policy, stores.run_stores, stores.clock, log)
    except RunError as error:
        yield _error("stores", error)


def _check_rules(policy: SessionPolicy, opened: RunStores) -> Iterator[Finding]:
    has_logs = opened.redis is not None and opened.redis.names.access_log is not None
    mapped = mapped_fields(RuleQueries(opened.database), has_access_logs=has_logs)
    explicit = policy.spec.rules_ is not None
    for rule in policy.spec.session_rules:
        if missing := missing_fields(rule, mapped):
            yield Finding(
                Severity.WARNING if explicit else Severity.INFO,
                "rules",
                f"{rule.type} finds nothing because this is not mapped: {', '.join(missing)}",
                "map it, or remove the rule" if explicit else "",
            )


def _check_settings(policy: SessionPolicy, opened: RunStores, clock: RunClock, log: Any) -> Iterator[Finding]:
    context = RunContext(policy, True, opened.database, opened.redis, clock, Tally(), NoProgress(), log)
    for finding in settings_verification.verify_settings(context, RuleQueries(opened.database), opened.settings):
        severity = Severity.INFO if finding.in_policy else Severity.WARNING
        yield Finding(severity, finding.field.removeprefix("spec."), finding.message, finding.remedy)
