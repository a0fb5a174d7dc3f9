"""What Prometheus is told of each policy, all of it read from the policy itself.

So the figures are right at once after a restart or a change of leader, and gone when the policy is. Of a policy only
the numbers are kept. A figure that is not known has no sample: 0 would look like a measurement. Whatever a container
has reported, the labels are a policy's namespace and name, and words from closed sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.metrics.policy_metric_families import FAMILIES, NAMED_FAMILIES, Observed
from controller.status.policy_status import stored_status
from policy.manifest import InvalidPolicyError, parse_policy

PolicyKey = tuple[str, str]
"""Namespace and name of a policy."""

_PREFIX: Final = "session_policy"


@dataclass(frozen=True, slots=True)
class PolicyFigures:
    """The figures of one policy.

    Attributes:
        values: in the order of the families and their labels; None for what is not known.
        named: the samples of each named family.
    """

    values: tuple[float | None, ...]
    named: tuple[tuple[tuple[str, int], ...], ...]


def figures(policy: Mapping[str, Any]) -> PolicyFigures:
    """Read a policy's figures from its spec and status."""
    stored = policy.get("status") or {}
    # The history is long, and hardly a figure is read from it.
    status = stored_status({"status": {k: v for k, v in stored.items() if k != "history"}})
    try:
        spec = parse_policy(policy).spec
    except InvalidPolicyError:
        spec = None
    seen = Observed(spec, status, tuple(stored.get("history") or ()))
    return PolicyFigures(
        values=tuple(read(seen) for family in FAMILIES for read in family.read.values()),
        named=tuple(family.samples(seen) for family in NAMED_FAMILIES),
    )


def families(policies: Iterable[tuple[PolicyKey, PolicyFigures]]) -> Iterator[Metric]:
    """The metrics of all policies."""
    found = [(key, iter(seen.values), iter(seen.named)) for key, seen in policies]
    for family in FAMILIES:
        kind = CounterMetricFamily if family.is_counter else GaugeMetricFamily
        labels = ["namespace", "policy", *([family.label] if family.label else [])]
        metric = kind(f"{_PREFIX}_{family.name}", family.documentation, labels=labels)
        for own in family.read:
            for key, values, _ in found:
                value = next(values)
                if value is not None:
                    metric.add_metric([*key, own] if family.label else key, value)
        yield metric
    for named in NAMED_FAMILIES:
        metric = GaugeMetricFamily(
            f"{_PREFIX}_{named.name}", named.documentation, labels=["namespace", "policy", "reason"]
        )
        for key, _, samples in found:
            for reason, value in next(samples):
                metric.add_metric([*key, reason], value)
        yield metric


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
