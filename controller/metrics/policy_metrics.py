"""The metrics of each policy, all of them read from the policy itself.

So they are right at once after a restart or a change of leader, and gone when the policy is. Only the numbers of a
policy are kept. A value that is not known has no sample: 0 would look like a measurement. Whatever a container has
reported, the labels are a policy's namespace and name, and words from closed sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.metrics.policy_metric_families import METRIC_FAMILIES, REASON_FAMILIES, PolicyState
from controller.status.policy_status import stored_status
from policy.manifest import InvalidPolicyError, parse_policy

PolicyKey = tuple[str, str]
"""Namespace and name of a policy."""

_PREFIX: Final = "session_policy"


@dataclass(frozen=True, slots=True)
class PolicySamples:
    """The values of one policy.

    Attributes:
        values: in the order of the families and their labels; None for what is not known.
        named: the samples of each named family.
    """

    values: tuple[float | None, ...]
    named: tuple[tuple[tuple[str, int], ...], ...]


def policy_samples(policy: Mapping[str, Any]) -> PolicySamples:
    """Read the values of a policy's metrics from its spec and status."""
    stored = policy.get("status") or {}
    # The history is long, and hardly a value is read from it.
    status = stored_status({"status": {k: v for k, v in stored.items() if k != "history"}})
    try:
        spec = parse_policy(policy).spec
    except InvalidPolicyError:
        spec = None
    state = PolicyState(spec, status, tuple(stored.get("history") or ()))
    return PolicySamples(
        values=tuple(read(state) for family in METRIC_FAMILIES for read in family.read.values()),
        named=tuple(family.samples(state) for family in REASON_FAMILIES),
    )


def families(policies: Iterable[tuple[PolicyKey, PolicySamples]]) -> Iterator[Metric]:
    """The metrics of all policies."""
    found = [(key, iter(samples.values), iter(samples.named)) for key, samples in policies]
    for family in METRIC_FAMILIES:
        kind = CounterMetricFamily if family.is_counter else GaugeMetricFamily
        labels = ["namespace", "policy", *([family.label] if family.label else [])]
        metric = kind(f"{_PREFIX}_{family.name}", family.documentation, labels=labels)
        for own in family.read:
            for key, values, _ in found:
                value = next(values)
                if value is not None:
                    metric.add_metric([*key, own] if family.label else key, value)
        yield metric
    for named in REASON_FAMILIES:
        metric = GaugeMetricFamily(
            f"{_PREFIX}_{named.name}", named.documentation, labels=["namespace", "policy", "reason"]
        )
        for key, _, samples in found:
            for reason, value in next(samples):
                metric.add_metric([*key, reason], value)
        yield metric


class PolicyMetrics(Collector):
    """A Prometheus collector of the metrics of all policies."""

    def __init__(self) -> None:
        self._policies: dict[PolicyKey, PolicySamples] = {}
        self._is_shown: Callable[[], bool] = lambda: True

    def upsert(self, policy: Mapping[str, Any]) -> None:
        """Add or update a policy."""
        metadata = policy["metadata"]
        self._policies[metadata["namespace"], metadata["name"]] = policy_samples(policy)

    def delete(self, key: PolicyKey) -> None:
        """Remove a policy that was deleted."""
        self._policies.pop(key, None)

    def retain(self, keys: Iterable[PolicyKey]) -> None:
        """Remove all policies but these; the event of a deletion may have been lost."""
        for key in self._policies.keys() - set(keys):
            self.delete(key)

    def show_while(self, is_shown: Callable[[], bool]) -> None:
        """Show the policies only while this is true."""
        self._is_shown = is_shown

    def collect(self) -> Iterator[Metric]:
        """All samples, for the registry; called from any thread."""
        return families(list(self._policies.items()) if self._is_shown() else [])

    def describe(self) -> Iterator[Metric]:
        """The metrics without samples, for the registry."""
        return families([])
