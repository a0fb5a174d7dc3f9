"""R1.3 on a real cluster: both services' spans of a run arrive in one trace, and its id is in the policy's status."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from policy.tracing import root_span_id, trace_id
from tests.e2e.application import POLICY, Application
from tests.e2e.collector import ClusterCollector
from tests.e2e.operator_release import NAMESPACE, OperatorRelease
from tests.support.kube import Kubectl, eventually
from tests.support.otlp import Span

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def collector(kubectl: Kubectl, version: str, operator: OperatorRelease) -> Iterator[ClusterCollector]:
    """A collector, and an operator that has been told of it."""
    with kubectl.temporary_namespace("e2e-collector") as namespace:
        one = ClusterCollector.start(kubectl, namespace, f"session-policy-e2e-stores:{version}")
        cluster = {"k8s.cluster.name": "e2e"}
        # In the cluster there is no such Secret: nothing but the header is missing.
        otlp = {"endpoint": one.endpoint, "headersSecret": {"name": "no-such-secret"}}
        operator.install({"telemetry": {"otlp": otlp, "resourceAttributes": cluster}})
        yield one


def test_r1_3_one_trace_of_a_run_comes_from_controller_and_job(
    application: Application, collector: ClusterCollector
) -> None:
    seeded = application.seed()
    application.apply_policy()
    application.wait_for("Ready")
    run = application.request_run()
    assert run["outcome"] == "Succeeded"
    assert run["traceID"] == trace_id(run["jobUID"])
    assert application.policy()["status"]["lastRun"]["traceID"] == run["traceID"]

    def trace() -> dict[str, Span] | None:
        spans = {span.name: span for span in collector.received().spans if span.trace_id == run["traceID"]}
        return spans if "record outcome" in spans else None

    spans = eventually(trace, what="both services' spans", timeout_seconds=60)
    assert spans is not None
    root, recorded = spans["session-policy run"], spans["record outcome"]
    assert {span.service for span in spans.values()} == {"session-policy-job", "session-policy-controller"}
    assert recorded.parent_id == root.span_id == root_span_id(run["jobUID"], str(root.resource["k8s.pod.uid"]))
    ((trace_of_reconcile, span_of_reconcile),) = root.links
    reconciles = [(span.trace_id, span.span_id) for span in collector.received().spans if span.name == "reconcile"]
    assert (trace_of_reconcile, span_of_reconcile) in reconciles

    (pod,) = application.kubectl.list("pods", application.namespace, f"batch.kubernetes.io/job-name={run['jobName']}")
    assert root.resource["k8s.pod.name"] == pod["metadata"]["name"]
    assert root.resource["k8s.node.name"] == pod["spec"]["nodeName"]
    assert root.resource["k8s.cronjob.name"] == POLICY
    controllers = {pod["metadata"]["name"] for pod in application.kubectl.list("pods", NAMESPACE)}
    assert recorded.resource["k8s.pod.name"] in controllers
    assert {span.resource["k8s.cluster.name"] for span in spans.values()} == {"e2e"}

    received = b"".join(body for _, body in collector.received().bodies)
    for secret in [session.id for session in seeded] + ["greedy", application.store.database]:
        assert secret.encode() not in received
