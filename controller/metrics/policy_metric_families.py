"""The table of the metrics that every policy has: the name of each, what it means, and what it is read from.

A new metric is one entry here; docs/reference/metrics.md describes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise, takewhile
from typing import Any, Final

from controller.metrics.reason_labels import LAST_RUN_REASONS, OTHER, STALLED_REASONS
from controller.metrics.schedule_interval import longest_interval_seconds
from controller.status.policy_status import condition
from policy.alerts import Thresholds
from policy.reasons import ALERTS
from policy.report import Outcome, RedisCounts, SessionCounts, Vitals
from policy.spec import SessionPolicySpec
from policy.status import ConditionStatus, ConditionType, RunRecord, RunTotals, SessionPolicyStatus

_MEBIBYTE: Final = 2**20
_HOUR_SECONDS: Final = 3600
# Runs that went through everything that was due, or as much of it as they had time for.
_CLEANED_UP: Final = frozenset({Outcome.SUCCEEDED.value, Outcome.DEGRADED.value})


@dataclass(frozen=True, slots=True)
class PolicyState:
    """A policy as its metrics are read from it.

    Attributes:
        spec: None if it does not parse.
        status: without the history.
        history: the last runs, newest first, as they are stored.
    """

    spec: SessionPolicySpec | None
    status: SessionPolicyStatus
    history: tuple[Mapping[str, Any], ...]


Read = Callable[[PolicyState], float | None]
"""Reads a sample's value; None where it is not known."""


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """A metric that every policy may have.

    Attributes:
        name: without the prefix, and without the ``_total`` of a counter.
        documentation: what it means, in one sentence.
        read: how each sample is read; by the value of the family's own label, or "" if it has none.
        label: name of that label.
        is_counter: it only grows.
    """

    name: str
    documentation: str
    read: Mapping[str, Read]
    label: str = ""
    is_counter: bool = False


def _time(read: Callable[[SessionPolicyStatus], datetime | None]) -> Mapping[str, Read]:
    def timestamp(seen: PolicyState) -> float | None:
        time = read(seen.status)
        return time.timestamp() if time else None

    return {"": timestamp}


def _spec(read: Callable[[SessionPolicySpec], float | None]) -> Mapping[str, Read]:
    return {"": lambda seen: read(seen.spec) if seen.spec else None}


def _last_run(read: Callable[[RunRecord], float | None]) -> Read:
    return lambda seen: read(seen.status.last_run) if seen.status.last_run else None


def _sessions(read: Callable[[SessionCounts], float]) -> Read:
    return _last_run(lambda run: read(run.sessions))


def _active(run: RunRecord) -> float | None:
    is_counted = run.sessions.active > 0 or run.outcome.value in _CLEANED_UP
    return run.sessions.active if is_counted else None


def _redis(read: Callable[[RedisCounts], float]) -> Mapping[str, Read]:
    return {"": _last_run(lambda run: read(run.redis) if run.redis else None)}


def _vitals(read: Callable[[Vitals], float | None]) -> Mapping[str, Read]:
    return {"": _last_run(lambda run: read(run.vitals) if run.vitals else None)}


def _threshold(read: Callable[[Thresholds], float]) -> Mapping[str, Read]:
    """A threshold of the policy's; 0, which means none, has no sample."""
    return _spec(lambda spec: read(spec.alerts.thresholds) or None)


def _redis_threshold(read: Callable[[Thresholds], float]) -> Mapping[str, Read]:
    """As `_threshold`; a policy without Redis has none."""
    return _spec(lambda spec: (read(spec.alerts.thresholds) or None) if spec.stores.redis else None)


def _growing_backlog(seen: PolicyState) -> float:
    """How many of the last runs in a row left more undone than the one before."""
    remaining = [
        (run.get("sessions") or {}).get("remaining") or 0
        for run in seen.history
        if run.get("outcome") in _CLEANED_UP and run.get("dryRun") is not True
    ]
    return sum(1 for _ in takewhile(lambda pair: pair[0] > pair[1], pairwise(remaining)))


def _totals(read: Callable[[RunTotals], float]) -> Read:
    return lambda seen: read(seen.status.totals)


def _holds(kind: ConditionType) -> Mapping[str, Read]:
    def holds(seen: PolicyState) -> float:
        state = condition(seen.status, kind)
        return float(state is not None and state.status is ConditionStatus.TRUE)

    return {"": holds}


def _is_outcome(outcome: Outcome) -> Read:
    return _last_run(lambda run: float(run.outcome is outcome))


METRIC_FAMILIES: Final = (
    MetricFamily(
        "ready", "1 if the policy is accepted and its CronJob matches it, else 0.", _holds(ConditionType.READY)
    ),
    MetricFamily("running", "1 while a run is active, else 0.", _holds(ConditionType.RUNNING)),
    MetricFamily("suspended", "1 if scheduled runs are stopped, else 0.", _spec(lambda spec: float(spec.suspend))),
    MetricFamily(
        "schedule_interval_seconds",
        "Longest time between two scheduled starts: for a schedule on weekdays it is the weekend.",
        _spec(lambda spec: longest_interval_seconds(spec.schedule)),
    ),
    MetricFamily("dry_run", "1 if runs are dry runs, else 0.", _spec(lambda spec: float(spec.dry_run))),
    MetricFamily(
        "next_schedule_timestamp_seconds",
        "When the next run is due; absent while suspended.",
        _time(lambda status: status.next_schedule_time),
    ),
    MetricFamily(
        "overdue_schedules",
        "Scheduled times since a run was last started by schedule at which none was.",
        {"": lambda seen: seen.status.missed_schedules},
    ),
    MetricFamily(
        "job_timeout_seconds",
        "Time after which a run is stopped.",
        _spec(lambda spec: spec.job.timeout_seconds),
    ),
    MetricFamily(
        "run_duration_threshold_seconds",
        "The policy's threshold: a run that takes longer is worth an alert.",
        _threshold(lambda thresholds: thresholds.duration_seconds),
    ),
    MetricFamily(
        "failed_deletions_threshold_ratio",
        "The policy's threshold: a run of whose deletions a larger share fails is worth an alert.",
        _spec(lambda spec: spec.alerts.thresholds.failed_percent / 100),
    ),
    MetricFamily(
        "active_sessions_threshold",
        "The policy's threshold: more live sessions are worth an alert; absent for any number.",
        _threshold(lambda thresholds: thresholds.active_sessions),
    ),
    MetricFamily(
        "redis_memory_threshold_bytes",
        "The policy's threshold: more memory in use is worth an alert; absent for any amount.",
        _redis_threshold(lambda thresholds: thresholds.redis_memory_megabytes * _MEBIBYTE),
    ),
    MetricFamily(
        "redis_hit_threshold_ratio",
        "The policy's threshold: a smaller share of look-ups that find something is worth an alert.",
        _redis_threshold(lambda thresholds: thresholds.cache_hit_percent / 100),
    ),
    MetricFamily(
        "last_run_timestamp_seconds",
        "When the last run ended.",
        _time(lambda status: status.last_run.completion_time if status.last_run else None),
    ),
    MetricFamily(
        "last_success_timestamp_seconds",
        "When a run last succeeded.",
        _time(lambda status: status.last_success_time),
    ),
    MetricFamily(
        "last_run_duration_seconds",
        "How long the last run took.",
        {"": _last_run(lambda run: run.duration_seconds)},
    ),
    MetricFamily(
        "last_run_outcome",
        "1 for the outcome of the last run, 0 for the others.",
        {outcome.value: _is_outcome(outcome) for outcome in Outcome},
        label="outcome",
    ),
    MetricFamily(
        "last_run_sessions",
        "Sessions of the last run, by what became of them. The states overlap: an expired one is deleted, too.",
        {
            "expired": _sessions(lambda counts: counts.expired),
            "evicted": _sessions(lambda counts: counts.evicted),
            "duplicate": _sessions(lambda counts: counts.duplicate),
            "abnormal": _sessions(lambda counts: counts.abnormal),
            "deleted": _sessions(lambda counts: counts.deleted),
            "failed": _sessions(lambda counts: counts.failed),
            "remaining": _sessions(lambda counts: counts.remaining),
        },
        label="state",
    ),
    MetricFamily(
        "last_run_dry_run", "1 if the last run was a dry run, else 0.", {"": _last_run(lambda run: run.dry_run)}
    ),
    MetricFamily(
        "active_sessions",
        "Live sessions after the last run; absent if it ended before they were counted.",
        {"": _last_run(_active)},
    ),
    MetricFamily(
        "created_sessions_per_second",
        "How fast sessions began between the last run and the one before it.",
        _vitals(lambda vitals: None if vitals.created_per_hour is None else vitals.created_per_hour / _HOUR_SECONDS),
    ),
    MetricFamily(
        "session_duration_average_seconds",
        "How long the sessions that the last run deleted were in use, on average.",
        _vitals(lambda vitals: vitals.average_session_seconds),
    ),
    MetricFamily(
        "backlog_growing_runs",
        "How many of the last runs in a row left more due sessions undeleted than the run before; 9 at most.",
        {"": _growing_backlog},
    ),
    MetricFamily(
        "consecutive_failures",
        "Runs since the last success that failed or were degraded.",
        {"": lambda seen: seen.status.consecutive_failures},
    ),
    MetricFamily(
        "redis_memory_bytes",
        "Memory that Redis used at the last run, all of its nodes together.",
        _vitals(lambda vitals: vitals.redis_memory_bytes),
    ),
    MetricFamily(
        "redis_hit_ratio",
        "Share of the look-ups in Redis that found their key, since its servers began; absent for a few look-ups.",
        _vitals(lambda vitals: vitals.redis_hit_ratio),
    ),
    MetricFamily(
        "redis_sessions", "Session keys that the last run saw in Redis.", _redis(lambda redis: redis.sessions)
    ),
    MetricFamily(
        "redis_deleted_sessions", "Session keys that the last run deleted.", _redis(lambda redis: redis.deleted)
    ),
    MetricFamily(
        "redis_orphaned_sessions",
        "Session keys without a live database row that the last run found.",
        _redis(lambda redis: redis.orphaned),
    ),
    MetricFamily(
        "redis_missing_sessions",
        "Live database rows without a session key that the last run found.",
        _redis(lambda redis: redis.missing),
    ),
    MetricFamily(
        "redis_removed_index_entries",
        "Entries that the last run removed from user indexes.",
        _redis(lambda redis: redis.index_entries_removed),
    ),
    MetricFamily(
        "redis_added_ttls",
        "Session keys without a TTL that the last run gave one.",
        _redis(lambda redis: redis.ttl_added),
    ),
    MetricFamily(
        "runs",
        "Finished runs, by how they ended.",
        {
            Outcome.SUCCEEDED.value: _totals(lambda totals: totals.runs_succeeded),
            Outcome.DEGRADED.value: _totals(lambda totals: totals.runs_degraded),
            Outcome.FAILED.value: _totals(lambda totals: totals.runs_failed),
            Outcome.SKIPPED.value: _totals(lambda totals: totals.runs_skipped),
        },
        label="outcome",
        is_counter=True,
    ),
    MetricFamily(
        "deleted_sessions",
        "Sessions deleted by all runs.",
        {"": _totals(lambda totals: totals.deleted_sessions)},
        is_counter=True,
    ),
    MetricFamily(
        "missed_schedules",
        "Scheduled times at which no run was started.",
        {"": _totals(lambda totals: totals.missed_schedules)},
        is_counter=True,
    ),
)


@dataclass(frozen=True, slots=True)
class ReasonFamily:
    """A metric with one sample for each reason that applies.

    Attributes:
        name: without the prefix.
        documentation: what it means, in one sentence.
        words: the values that the label ``reason`` may have; any other becomes "Other".
        read: the samples by reason.
    """

    name: str
    documentation: str
    words: Collection[str]
    read: Callable[[PolicyState], Iterable[tuple[str, int]]]

    def samples(self, seen: PolicyState) -> tuple[tuple[str, int], ...]:
        """The samples; those with unknown reasons are added up to one."""
        found: Counter[str] = Counter()
        for reason, value in self.read(seen):
            found[reason if reason in self.words else OTHER] += value
        return tuple(found.items())


def _stall(seen: PolicyState) -> Iterator[tuple[str, int]]:
    stalled = condition(seen.status, ConditionType.STALLED)
    if stalled:
        yield stalled.reason, 1


def _reason(seen: PolicyState) -> Iterator[tuple[str, int]]:
    if seen.status.last_run:
        yield seen.status.last_run.reason, 1


def _alerts(seen: PolicyState) -> Iterator[tuple[str, int]]:
    if seen.status.last_run:
        yield from ((alert.reason, alert.count) for alert in seen.status.last_run.alerts)


REASON_FAMILIES: Final = (
    ReasonFamily("stalled", "1 while the policy is stalled, for this reason.", STALLED_REASONS, _stall),
    ReasonFamily("last_run_reason", "1 for the reason of the last run's outcome.", LAST_RUN_REASONS, _reason),
    ReasonFamily(
        "last_run_alerts", "What the last run found worth an alert: how many, or how much of it.", ALERTS, _alerts
    ),
)
