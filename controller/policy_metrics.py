"""What Prometheus is told of each policy, all of it read from the policy itself.

So the figures are right at once after a restart or a change of leader, and gone when the policy is. Of a policy only
the numbers are kept. A figure that is not known has no sample: 0 would look like a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.schedule_interval import longest_interval_seconds
from controller.status import condition, stored_status
from policy.manifest import InvalidPolicyError, parse_policy
from policy.report import Outcome, RedisCounts, SessionCounts
from policy.spec import SessionPolicySpec
from policy.status import ConditionStatus, ConditionType, RunRecord, RunTotals, SessionPolicyStatus

PolicyKey = tuple[str, str]
"""Namespace and name of a policy."""

_PREFIX: Final = "session_policy"


@dataclass(frozen=True, slots=True)
class _Observed:
    """A policy as its figures are read; the spec is None if it does not parse."""

    spec: SessionPolicySpec | None
    status: SessionPolicyStatus


_Read = Callable[[_Observed], float | None]


@dataclass(frozen=True, slots=True)
class _Family:
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
    read: Mapping[str, _Read]
    label: str = ""
    is_counter: bool = False


def _time(read: Callable[[SessionPolicyStatus], datetime | None]) -> Mapping[str, _Read]:
    def timestamp(seen: _Observed) -> float | None:
        time = read(seen.status)
        return time.timestamp() if time else None

    return {"": timestamp}


def _spec(read: Callable[[SessionPolicySpec], float | None]) -> Mapping[str, _Read]:
    return {"": lambda seen: read(seen.spec) if seen.spec else None}


def _last_run(read: Callable[[RunRecord], float | None]) -> _Read:
    return lambda seen: read(seen.status.last_run) if seen.status.last_run else None


def _sessions(read: Callable[[SessionCounts], float]) -> _Read:
    return _last_run(lambda run: read(run.sessions))


def _redis(read: Callable[[RedisCounts], float]) -> Mapping[str, _Read]:
    return {"": _last_run(lambda run: read(run.redis) if run.redis else None)}


def _totals(read: Callable[[RunTotals], float]) -> _Read:
    return lambda seen: read(seen.status.totals)


def _holds(kind: ConditionType) -> Mapping[str, _Read]:
    def holds(seen: _Observed) -> float:
        state = condition(seen.status, kind)
        return float(state is not None and state.status is ConditionStatus.TRUE)

    return {"": holds}


def _is_outcome(outcome: Outcome) -> _Read:
    return _last_run(lambda run: float(run.outcome is outcome))


_FAMILIES: Final = (
    _Family("ready", "1 if the policy is accepted and its CronJob matches it, else 0.", _holds(ConditionType.READY)),
    _Family("running", "1 while a run is under way, else 0.", _holds(ConditionType.RUNNING)),
    _Family("suspended", "1 if scheduled runs are stopped, else 0.", _spec(lambda spec: float(spec.suspend))),
    _Family(
        "schedule_interval_seconds",
        "Longest time between two scheduled starts: for a schedule on weekdays it is the weekend.",
        _spec(lambda spec: longest_interval_seconds(spec.schedule)),
    ),
    _Family(
        "next_schedule_timestamp_seconds",
        "When the next run is due; absent while suspended.",
        _time(lambda status: status.next_schedule_time),
    ),
    _Family(
        "job_timeout_seconds",
        "Time after which a run is stopped.",
        _spec(lambda spec: spec.job.timeout_seconds),
    ),
    _Family(
        "last_run_timestamp_seconds",
        "When the last run ended.",
        _time(lambda status: status.last_run.completion_time if status.last_run else None),
    ),
    _Family(
        "last_success_timestamp_seconds",
        "When a run last ended well.",
        _time(lambda status: status.last_success_time),
    ),
    _Family(
        "last_run_duration_seconds",
        "How long the last run took.",
        {"": _last_run(lambda run: run.duration_seconds)},
    ),
    _Family(
        "last_run_outcome",
        "1 for the outcome of the last run, 0 for the others.",
        {outcome.value: _is_outcome(outcome) for outcome in Outcome},
        label="outcome",
    ),
    _Family(
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
    _Family(
        "last_run_alerts",
        "Things that the last run found worth an alert.",
        {"": _last_run(lambda run: len(run.alerts))},
    ),
    _Family("active_sessions", "Live sessions after the last run.", {"": _sessions(lambda counts: counts.active)}),
    _Family(
        "consecutive_failures",
        "Runs since the last success that did not end well.",
        {"": lambda seen: seen.status.consecutive_failures},
    ),
    _Family("redis_sessions", "Session keys that the last run saw in Redis.", _redis(lambda redis: redis.sessions)),
    _Family("redis_deleted_sessions", "Session keys that the last run deleted.", _redis(lambda redis: redis.deleted)),
    _Family(
        "redis_orphaned_sessions",
        "Session keys without a live database row that the last run found.",
        _redis(lambda redis: redis.orphaned),
    ),
    _Family(
        "redis_missing_sessions",
        "Live database rows without a session key that the last run found.",
        _redis(lambda redis: redis.missing),
    ),
    _Family(
        "redis_removed_index_entries",
        "Entries that the last run removed from user indexes.",
        _redis(lambda redis: redis.index_entries_removed),
    ),
    _Family(
        "redis_added_ttls",
        "Session keys without a TTL that the last run gave one.",
        _redis(lambda redis: redis.ttl_added),
    ),
    _Family(
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
    _Family(
        "deleted_sessions",
        "Sessions deleted by all runs.",
        {"": _totals(lambda totals: totals.deleted_sessions)},
        is_counter=True,
    ),
    _Family(
        "missed_schedules",
        "Scheduled times at which no run was started.",
        {"": _totals(lambda totals: totals.missed_schedules)},
        is_counter=True,
    ),
)


@dataclass(frozen=True, slots=True)
class PolicyFigures:
    """The figures of one policy.

    Attributes:
        values: in the order of the families and their labels; None for what is not known.
        stalled: the reason why the policy is stuck, one of the controller's own; None if it is not.
    """

    values: tuple[float | None, ...]
    stalled: str | None


def figures(policy: Mapping[str, Any]) -> PolicyFigures:
    """Read a policy's figures from its spec and status."""
    # The history is long, and no figure is read from it.
    status = stored_status({"status": {k: v for k, v in (policy.get("status") or {}).items() if k != "history"}})
    try:
        spec = parse_policy(policy).spec
    except InvalidPolicyError:
        spec = None
    seen = _Observed(spec, status)
    stalled = condition(status, ConditionType.STALLED)
    return PolicyFigures(
        values=tuple(read(seen) for family in _FAMILIES for read in family.read.values()),
        stalled=stalled.reason if stalled else None,
    )


def families(policies: Iterable[tuple[PolicyKey, PolicyFigures]]) -> Iterator[Metric]:
    """The metrics of all policies."""
    found = [(key, iter(seen.values), seen.stalled) for key, seen in policies]
    for family in _FAMILIES:
        kind = CounterMetricFamily if family.is_counter else GaugeMetricFamily
        labels = ["namespace", "policy", *([family.label] if family.label else [])]
        metric = kind(f"{_PREFIX}_{family.name}", family.documentation, labels=labels)
        for own in family.read:
            for key, values, _ in found:
                value = next(values)
                if value is not None:
                    metric.add_metric([*key, own] if family.label else key, value)
        yield metric
    stalled = GaugeMetricFamily(
        f"{_PREFIX}_stalled", "1 while the policy is stuck, for this reason.", labels=["namespace", "policy", "reason"]
    )
    for key, _, reason in found:
        if reason is not None:
            stalled.add_metric([*key, reason], 1)
    yield stalled


class PolicyMetrics(Collector):
    """The figures of the policies that were seen."""

    def __init__(self) -> None:
        self._policies: dict[PolicyKey, PolicyFigures] = {}
        self._is_shown: Callable[[], bool] = lambda: True

    def seen(self, policy: Mapping[str, Any]) -> None:
        """A policy is as it is here."""
        metadata = policy["metadata"]
        self._policies[metadata["namespace"], metadata["name"]] = figures(policy)

    def gone(self, key: PolicyKey) -> None:
        """A policy is no more."""
        self._policies.pop(key, None)

    def retain(self, keys: Iterable[PolicyKey]) -> None:
        """There are no other policies than these: the end of one may not have been told."""
        for key in self._policies.keys() - set(keys):
            self.gone(key)

    def shown_while(self, is_shown: Callable[[], bool]) -> None:
        """Show the figures only while this holds."""
        self._is_shown = is_shown

    def collect(self) -> Iterator[Metric]:
        """For the registry; called from any thread."""
        return families(list(self._policies.items()) if self._is_shown() else [])

    def describe(self) -> Iterator[Metric]:
        """The names, for the registry."""
        return families([])
