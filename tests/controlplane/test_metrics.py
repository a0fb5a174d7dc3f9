"""What Prometheus would scrape from the running controller."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.controlplane.conftest import StartController
from tests.controlplane.controller_process import ControllerProcess
from tests.controlplane.kubelet import Kubelet, report
from tests.controlplane.policies import Policies, Policy
from tests.support.exposition import samples
from tests.support.kube import Kubectl, eventually
from tests.unit.chart.test_monitoring import alerts, dashboard_queries
from tests.unit.policy.test_runbooks import PAGES

CANARY = "canary"
VITALS = {"redisMemoryBytes": 2**30, "redisHitRatio": 0.75, "createdPerHour": 7200.0, "averageSessionSeconds": 900}


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


@pytest.mark.exhaustive
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


def names(process: ControllerProcess) -> set[str]:
    return {s.name for family in text_string_to_metric_families(process.metrics()) for s in family.samples}


def test_r5_every_metric_that_rules_and_dashboard_name_is_on_a_live_controller(
    policies: Policies, kubelet: Kubelet, controller: ControllerProcess
) -> None:
    secret = {"secretKeyRef": {"name": "stores", "key": "url"}}
    ran = policies.ready(stores={"database": {"urlFrom": secret}, "redis": {"urlFrom": secret}})
    stuck = policies.ready()
    job, waiting = ran.request_run(), stuck.request_run()
    kubelet.finish(job, report(vitals=VITALS, alerts=[{"reason": "CreationRateHigh", "count": 7}]))
    kubelet.wait(waiting, "ErrImagePull", "no such image")
    eventually(lambda: "stalled ImagePullBackOff" in of_policy(controller, stuck), what="the stall is shown")
    eventually(lambda: "redis_memory_bytes" in of_policy(controller, ran), what="the outcome is shown")
    shown = of_policy(controller, ran)
    assert shown["redis_memory_bytes"] == 2**30
    assert shown["redis_hit_ratio"] == 0.75
    assert shown["created_sessions_per_second"] == 2
    assert shown["session_duration_average_seconds"] == 900
    assert shown["last_run_alerts CreationRateHigh"] == 7
    assert shown["last_run_reason Completed"] == 1
    queries = [*(rule["expr"] for rule in alerts()), *dashboard_queries()]
    asked = {name for query in queries for name in re.findall(r"session_policy_\w+", query)}
    assert len(asked) > 30
    assert asked <= names(controller)


def test_no_id_user_or_credential_is_in_any_metric_whatever_a_container_reports(
    policies: Policies, kubelet: Kubelet, controller: ControllerProcess
) -> None:
    secret = {"secretKeyRef": {"name": f"{CANARY}-secret", "key": f"{CANARY}-key"}}
    policy = policies.ready(
        stores={"database": {"urlFrom": secret}, "redis": {"urlFrom": secret}},
        concurrency={"exemptUsers": [f"{CANARY}-user"]},
        alerts={"operations": {"urlsFrom": secret}, "runbookUrl": f"https://{CANARY}.example"},
        job={"retries": 0, "nodeSelector": {CANARY: CANARY}},
    )
    job = policy.request_run()
    said = {
        "reason": "CanaryReason",
        "message": f"deleted {CANARY}-session of {CANARY}-user with {CANARY}-password",
        "alerts": [{"reason": "CanaryAlert", "count": 1}, {"reason": "CanaryUser", "count": 2}],
        "traceID": "c" * 32,
    }
    kubelet.finish(job, report(**said))
    policy.await_record(job)
    eventually(lambda: "last_run_reason Other" in of_policy(controller, policy), what="the outcome is shown")
    assert of_policy(controller, policy)["last_run_alerts Other"] == 3
    # What does not parse is not shown at all.
    second = policy.request_run()
    kubelet.finish(second, report(sessions={CANARY: 1}), exit_code=1)
    policy.await_record(second)
    # What a Pod's state says is somebody else's words, too.
    third = policy.request_run()
    kubelet.wait(third, "CreateContainerConfigError", f'secret "{CANARY}-secret" not found')
    eventually(lambda: "stalled CreateContainerConfigError" in of_policy(controller, policy), what="the stall is shown")
    for accept in ("*/*", "application/openmetrics-text; version=1.0.0"):
        text = controller.metrics(accept)
        assert policy.name in text
        assert CANARY not in text.lower()
        assert "c" * 32 not in text


# What they ask is not part of an API server alone.
ELSEWHERE = ("kubectl top", "kubectl logs", "kubectl get podmonitor")


def test_the_commands_of_the_runbooks_work(policies: Policies, kubelet: Kubelet, controller: ControllerProcess) -> None:
    """Those that look by kubectl."""
    policy = policies.ready()
    kubelet.finish(policy.request_run(), report())
    eventually(lambda: "last_run_reason Completed" in of_policy(controller, policy), what="the outcome is recorded")
    blocks = [block for page in PAGES for block in re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.S | re.M)]
    lines = {line.partition(" | ")[0] for block in blocks for line in block.splitlines()}
    commands = sorted(line for line in lines if line.startswith("kubectl") and not line.startswith(ELSEWHERE))
    assert len(commands) > 10
    variables = {"NS": policy.namespace, "POLICY": policy.name, "OPERATOR": "default"}
    for command in commands:
        done = policies.kubectl.shell(command, variables)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
