"""The metrics of the controller's own work; those of policies are in `policy_metrics`."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from controller.metrics.policy_metrics import PolicyMetrics

_PREFIX: Final = "session_policy_controller"
# From a reconciliation that reads only the cache to an API server that is slow.
_DURATION_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# Keys also wait for the lease, or behind two thousand policies after a start.
_WAIT_BUCKETS: Final = (0.001, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)


class Result(StrEnum):
    """How a reconciliation ended."""

    SUCCESS = "success"
    CONFLICT = "conflict"
    """Somebody wrote at the same time."""
    UNAVAILABLE = "unavailable"
    """The API server was away or overloaded, or the lease was not held."""
    ERROR = "error"


class Metrics:
    """All metrics of one process.

    Attributes:
        registry: what ``/metrics`` shows.
        policies: those of policies; without samples on a standby.
        queue_wait: seconds that a key waited for a worker.
    """

    def __init__(self) -> None:
        # Not the library's global registry: two controllers in one process, as in tests, would share it.
        self.registry: Final = CollectorRegistry()
        self.policies: Final = PolicyMetrics()
        self.registry.register(self.policies)
        ProcessCollector(registry=self.registry)
        self._reconciles = Counter(
            f"{_PREFIX}_reconcile", "Reconciliations, by how they ended.", ["result"], registry=self.registry
        )
        self._duration = Histogram(
            f"{_PREFIX}_reconcile_duration_seconds",
            "How long a reconciliation took.",
            registry=self.registry,
            buckets=_DURATION_BUCKETS,
        )
        self.queue_wait: Final = Histogram(
            f"{_PREFIX}_queue_wait_seconds",
            "How long a policy or revocation waited for a worker.",
            registry=self.registry,
            buckets=_WAIT_BUCKETS,
        )
        self._queue_depth = Gauge(
            f"{_PREFIX}_queue_depth", "Policies and revocations that wait for a worker.", registry=self.registry
        )
        self._leader = Gauge(
            f"{_PREFIX}_leader", "1 while this controller is the leader, else 0.", registry=self.registry
        )
        self._requests = Counter(
            f"{_PREFIX}_api_requests",
            "Requests to the API server, without the watches; code is error if there was no answer.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        build = Gauge(f"{_PREFIX}_build_info", "The controller's version.", ["version"], registry=self.registry)
        build.labels(version("session-policy-operator")).set(1)
        for result in Result:
            self._reconciles.labels(result.value)  # a rate is visible from the first error on

    def reconciled(self, result: Result, seconds: float) -> None:
        """Count a reconciliation that has ended."""
        self._reconciles.labels(result.value).inc()
        self._duration.observe(seconds)

    def api_request(self, verb: str, resource: str, code: str) -> None:
        """Count a request to the API server that has ended; see `kube.RequestObserver`."""
        self._requests.labels(verb, resource, code).inc()

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Show what this returns as the queue's depth."""
        self._queue_depth.set_function(depth)

    def watch_leadership(self, seconds_left: Callable[[], float]) -> None:
        """Show whether this controller leads; see `Leadership.seconds_left`. Only the leader shows policies."""

        def is_leader() -> bool:
            return seconds_left() > 0

        self._leader.set_function(is_leader)
        self.policies.show_while(is_leader)
