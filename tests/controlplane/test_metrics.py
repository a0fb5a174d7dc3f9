"""What Prometheus would scrape from the running controller."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.controlplane.conftest import StartController
from tests.controlplane.controller_process import ControllerProcess
from tests.controlplane.kubelet import Kubelet, report
from tests.controlplane.policies import Policies, Policy
from tests.support.exposition import samples
from tests.support.kube import Kubectl, eventually


@pytest.fixture
def kubelet(cluster: Kubectl, shared_namespace: str) -> Kubelet:
    return Kubelet(cluster, shared_namespace)


def scraped(process: ControllerProcess, **labels: str) -> dict[str, float]:
    """The samples that have these labels, by their name without the prefix and the values of their other labels."""
    return samples(process.metrics(), **labels)


def of_policy(process: ControllerProcess, policy: Policy) -> dict[str, float]:
    return scraped(process, namespace=policy.namespace, policy=policy.name)


def test_r5_a_policy_s_figures_follow_it_from_its_creation_to_its_end(
    policies: Policies, kubelet: Kubelet, controller: ControllerProcess
) -> None:
    policy = policies.ready(schedule="0 3 * * 1-5", job={"timeoutSeconds": 120})
    eventually(lambda: of_policy(controller, policy).get("ready") == 1, what="the policy is shown as ready")
    fresh = of_policy(controller, policy)
    assert fresh["schedule_interval_seconds"] == 3 * 86_400
    assert fresh["job_timeout_seconds"] == 120
    assert fresh["next_schedule_timestamp_seconds"] > 0
    assert "last_run_timestamp_seconds" not in fresh

    job = policy.request_run()
    eventually(lambda: of_policy(controller, policy)["running"] == 1, what="the run is shown as running")
    kubelet.finish(job, report(sessions={"active": 5, "expired": 3, "deleted": 2, "failed": 1}))
    eventually(lambda: "last_run_outcome Succeeded" in of_policy(controller, policy), what="the outcome is shown")
    shown = of_policy(controller, policy)
    assert shown["last_run_outcome Succeeded"] == 1
    assert shown["last_run_outcome Failed"] == 0
    assert shown["last_run_sessions deleted"] == 2
    assert shown["last_run_sessions failed"] == 1
    assert shown["active_sessions"] == 5
    assert shown["redis_sessions"] == 8
    assert shown["last_run_duration_seconds"] == 0.25
    assert shown["last_success_timestamp_seconds"] == shown["last_run_timestamp_seconds"]

    policy.apply(suspend=True)
    eventually(lambda: of_policy(controller, policy)["suspended"] == 1, what="the policy is shown as suspended")
    policies.kubectl.run("delete", "spol", policy.name, "-n", policy.namespace)
    eventually(lambda: not of_policy(controller, policy), what="the policy's figures are gone")


def test_a_stuck_run_is_shown_with_its_reason(
    policies: Policies, kubelet: Kubelet, controller: ControllerProcess
) -> None:
    policy = policies.ready()
    job = policy.request_run()
    kubelet.wait(job, "ErrImagePull", "no such image")
    eventually(lambda: of_policy(controller, policy).get("stalled ImagePullBackOff") == 1, what="the stall is shown")
    policies.kubectl.run("delete", "job", job, "-n", policy.namespace)
    eventually(lambda: "stalled ImagePullBackOff" not in of_policy(controller, policy), what="the stall is gone")


def test_a_policy_s_figures_are_there_at_once_after_a_restart(
    cluster: Kubectl, namespace: str, start_controller: StartController
) -> None:
    process = start_controller(namespace)
    policy = Policies(cluster, namespace).ready()
    job = policy.request_run()
    Kubelet(cluster, namespace).finish(job, report())
    policy.await_record(job)
    eventually(lambda: "active_sessions" in of_policy(process, policy), what="the outcome is shown")
    before = of_policy(process, policy)
    process.stop()
    process.start()
    eventually(lambda: of_policy(process, policy), what="the policy is shown again")
    assert of_policy(process, policy) == before


def test_the_controller_counts_its_own_work(policies: Policies, controller: ControllerProcess) -> None:
    policies.ready()
    shown = scraped(controller)
    assert shown["controller_leader"] == 1
    assert shown["controller_reconcile_total success"] > 0
    assert shown["controller_reconcile_duration_seconds_count"] > 0
    assert shown["controller_queue_wait_seconds_count"] > 0
    assert shown["controller_queue_depth"] >= 0
    writes = scraped(controller, verb="patch", resource="sessionpolicies/status")
    assert writes["controller_api_requests_total 200"] > 0
    labels = ("verb", "resource", "code")
    for family in text_string_to_metric_families(controller.metrics()):
        if family.name == "session_policy_controller_api_requests":
            assert all(set(sample.labels) == set(labels) for sample in family.samples)
