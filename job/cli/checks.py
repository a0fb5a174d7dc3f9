"""The preflight alone: all that can be found wrong with a policy, its stores and its channels before a run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from job.alerts.channels import Channels, problem_of
from job.logs.identity import Identities
from job.revocation.stores import open_stores, patient_for_people
from job.steps import settings_verification
from job.steps.context import RunContext
from job.steps.initialise import Opened
from job.steps.progress import Silent
from policy.manifest import SessionPolicy
from policy.names import DATABASE_URL_ENV, LOG_DIRECTORY_ENV, LOG_HASH_KEY_ENV, REDIS_URL_ENV
from policy.presets import resolve_table
from stores.model.errors import RunError
from stores.model.tally import Tally
from stores.redis.connection.connect import connect
from stores.redis.store import RedisStore
from stores.rules.table import missing_needs
from stores.sql.connection.connect import create_engine, parse_url
from stores.sql.connection.run_connection import RunConnection
from stores.sql.mapping.findings import Finding, Severity
from stores.sql.mapping.preflight import examine
from stores.sql.queries import RuleQueries
from stores.sql.schema.tables import alerts, history, statistics
from stores.waiting.clock import RunClock


def examine_policy(
    policy: SessionPolicy, database_url: str | None, redis_url: str | None, environment: Mapping[str, str], log: Any
) -> list[Finding]:
    """Everything worth saying about a policy and what it works on; errors first.

    Args:
        policy: the policy.
        database_url: where its database is.
        redis_url: where its Redis is.
        environment: holds alert URLs, the hash key and the log directory, as in a Pod.
        log: for retries.
    """
    policy = patient_for_people(policy)
    found = [
        *_of_database(policy, database_url, log),
        *_of_redis(policy, redis_url, log),
        *_of_alerts(policy, environment),
        *_of_logs(policy, environment),
    ]
    if not any(f.severity is Severity.ERROR and f.field.startswith("stores") for f in found):
        found += _of_both(policy, database_url, redis_url, log)
    order = list(Severity)
    return sorted(found, key=lambda finding: order.index(finding.severity))


def _error(field: str, error: RunError) -> Finding:
    return Finding(Severity.ERROR, field, str(error))


def _of_database(policy: SessionPolicy, url: str | None, log: Any) -> Iterator[Finding]:
    store = policy.spec.stores.database
    if store is None:
        return
    field = "stores.database"
    if not url:
        yield Finding(Severity.ERROR, field, "no database URL", f"set {DATABASE_URL_ENV} or give --database-url")
        return
    connection: RunConnection | None = None
    try:
        connection = RunConnection(create_engine(parse_url(url)), policy.spec.retries.database, RunClock(60), log)
        for finding in connection.inspect(lambda inspector: examine(inspector, resolve_table(store))).findings:
            yield Finding(finding.severity, f"{field}.table.{finding.field}", finding.message, finding.remedy)
        yield from _of_tables(policy, connection)
    except RunError as error:
        yield _error(field, error)
    finally:
        if connection:
            connection.close()


def _of_tables(policy: SessionPolicy, connection: RunConnection) -> Iterator[Finding]:
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


def _of_redis(policy: SessionPolicy, url: str | None, log: Any) -> Iterator[Finding]:
    store = policy.spec.stores.redis
    if store is None:
        return
    if not url:
        yield Finding(Severity.ERROR, "stores.redis", "no Redis URL", f"set {REDIS_URL_ENV} or give --redis-url")
        return
    try:
        redis = RedisStore(connect(url, store), store, policy.spec.retries.redis, RunClock(60), log)
        try:
            redis.server_time()
        finally:
            redis.close()
    except RunError as error:
        yield _error("stores.redis", error)


def _of_alerts(policy: SessionPolicy, environment: Mapping[str, str]) -> Iterator[Finding]:
    wanted = policy.spec.alerts
    channels = Channels.from_environment(environment)
    for audience, urls in channels.urls.items():
        for number, url in enumerate(urls, start=1):
            if why := problem_of(url):
                yield Finding(
                    Severity.WARNING, f"alerts.{audience}.urlsFrom", f"URL {number}: {why}", "correct it in the Secret"
                )
    for audience_name, channel in (("operations", wanted.operations), ("security", wanted.security)):
        if channel and audience_name not in channels.urls:
            yield Finding(
                Severity.INFO,
                f"alerts.{audience_name}",
                "there are no URLs here, so they are not checked",
                f"set ALERT_{audience_name.upper()}_URLS as in the Secret",
            )


class _Warnings:
    """Keeps what :class:`Identities` warns of."""

    def __init__(self) -> None:
        self.because: list[tuple[str, str]] = []

    def warning(self, _event: str, *, because: str, remedy: str) -> None:
        self.because.append((because, remedy))


def _of_logs(policy: SessionPolicy, environment: Mapping[str, str]) -> Iterator[Finding]:
    logs, warnings = policy.spec.logs, _Warnings()
    Identities.from_environment(environment, warnings)
    for because, remedy in warnings.because:
        yield Finding(Severity.WARNING, "logs.hashKeyFrom", because, remedy)
    if logs.hash_key_from is None and not environment.get(LOG_HASH_KEY_ENV):
        yield Finding(
            Severity.INFO,
            "logs.hashKeyFrom",
            "there is no hash key: each run hashes ids with a key of its own, so that no session can be followed",
            "put a random key into a Secret and name it",
        )
    directory = environment.get(LOG_DIRECTORY_ENV)
    if directory and not (Path(directory).is_dir() and os.access(directory, os.W_OK | os.X_OK)):
        yield Finding(
            Severity.WARNING, "logs.volumeClaim", f"{LOG_DIRECTORY_ENV} is no directory that can be written to"
        )


def _of_both(policy: SessionPolicy, database_url: str | None, redis_url: str | None, log: Any) -> Iterator[Finding]:
    """What only shows with all stores open: clocks, rules that cannot be judged, stored settings."""
    try:
        with open_stores(policy, database_url, redis_url, log, exclusive=False) as place:
            if place.opened:
                yield from _of_rules(policy, place.opened)
                yield from _of_settings(policy, place.opened, place.clock, log)
    except RunError as error:
        yield _error("stores", error)


def _of_rules(policy: SessionPolicy, opened: Opened) -> Iterator[Finding]:
    met = RuleQueries(opened.database).met
    has_logs = opened.redis is not None and opened.redis.names.access_log is not None
    explicit = policy.spec.rules_ is not None
    for rule in policy.spec.session_rules:
        missing = [name for name in missing_needs(rule, met) if not (has_logs and name.endswith("accessLog"))]
        if missing:
            yield Finding(
                Severity.WARNING if explicit else Severity.INFO,
                "rules",
                f"{rule.type} finds nothing: not mapped: {', '.join(missing)}",
                "map it, or leave the rule out" if explicit else "",
            )


def _of_settings(policy: SessionPolicy, opened: Opened, clock: RunClock, log: Any) -> Iterator[Finding]:
    context = RunContext(policy, True, opened.database, opened.redis, clock, Tally(), Silent(), log)
    for finding in settings_verification.step(context, RuleQueries(opened.database), opened.settings):
        severity = Severity.INFO if finding.field.startswith("spec.") else Severity.WARNING
        yield Finding(severity, finding.field.removeprefix("spec."), finding.message, finding.remedy)
