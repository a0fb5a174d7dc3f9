"""Runs whose Pod the API server refuses. Quota, Pod Security, admission policy and limits are the real ones."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane.controller_process import ControllerProcess
from tests.controlplane.kubelet import Kubelet, report
from tests.controlplane.policies import Policies, Policy
from tests.support.kube import Kubectl, eventually

ABSENT_CLASS = "no-such-priority-class"


@dataclass(frozen=True)
class Refused:
    """A policy whose run cannot get a Pod."""

    policies: Policies
    policy: Policy
    job: str


def set_quota(cluster: Kubectl, namespace: str) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    cluster.apply(quota, namespace)
    eventually(
        lambda: cluster.get("resourcequota", "none", namespace).get("status", {}).get("hard"), what="the quota is known"
    )


def set_limits(cluster: Kubectl, namespace: str) -> None:
    limit = {"type": "Container", "max": {"memory": "50Mi"}}
    cluster.apply(
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": [limit]}},
        namespace,
    )


def set_pod_security(cluster: Kubectl, namespace: str) -> None:
    cluster.run("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")


def set_admission_policy(cluster: Kubectl, namespace: str) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    api = "admissionregistration.k8s.io/v1"
    refuse = {"expression": "false", "message": "images come from registry.corp only"}
    match = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    cluster.apply(
        {
            "apiVersion": api,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": namespace},
            "spec": {"matchConstraints": {"resourceRules": [rule]}, "validations": [refuse]},
        }
    )
    binding = {"policyName": namespace, "validationActions": ["Deny"], "matchResources": match}
    cluster.apply(
        {
            "apiVersion": api,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": namespace},
            "spec": binding,
        }
    )
    eventually(lambda: is_refused(cluster, namespace), what="the admission policy is in force")


def is_refused(cluster: Kubectl, namespace: str) -> bool:
    try:
        cluster.run("run", "probe", "--image=x", "--dry-run=server", "-n", namespace)
    except subprocess.CalledProcessError as error:
        return "registry.corp" in (error.stderr or "")
    return False


OBSTACLES: dict[str, Callable[[Kubectl, str], None]] = {
    "quota": set_quota,
    "limits": set_limits,
    "pod security": set_pod_security,
    "admission policy": set_admission_policy,
}


def make_insecure_job(policy: Policy) -> str:
    """A Job of the CronJob whose Pods somebody gave the host's network: the policy itself cannot ask for that."""
    name = f"{policy.name}-insecure"
    made = policy.kubectl.run(
        *("create", "job", name, f"--from=cronjob/{policy.cron_job_name}", "-n", policy.namespace),
        *("--dry-run=client", "-o", "json"),
    )
    job = json.loads(made)
    job["spec"]["template"]["spec"]["hostNetwork"] = True
    policy.kubectl.apply(job, policy.namespace)
    return name


@pytest.fixture(scope="module")
def refused(
    cluster: Kubectl, operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Refused]]:
    """One policy for each obstacle, all of them waiting at the same time."""
    with ExitStack() as stack:
        namespaces = {name: stack.enter_context(cluster.temporary_namespace("stuck")) for name in OBSTACLES}
        for name, set_up in OBSTACLES.items():
            set_up(cluster, namespaces[name])
        stack.callback(cluster.run, "delete", "validatingadmissionpolicy", namespaces["admission policy"])
        stack.callback(cluster.run, "delete", "validatingadmissionpolicybinding", namespaces["admission policy"])
        log = tmp_path_factory.mktemp("stuck") / "controller.log"
        process = ControllerProcess(operator_kubeconfig, log, list(namespaces.values()), {})
        stack.callback(process.kill)
        process.start()
        found = {}
        for name, namespace in namespaces.items():
            policies = Policies(cluster, namespace)
            policy = policies.ready()
            job = make_insecure_job(policy) if name == "pod security" else policy.request_run()
            found[name] = Refused(policies, policy, job)
        yield found


@pytest.mark.parametrize(
    ("obstacle", "reason", "words", "advice"),
    [
        ("quota", "QuotaExceeded", "exceeded quota: none, requested: pods=1", "raise the namespace's ResourceQuota"),
        ("limits", "PodNotCreated", "maximum memory usage per Container is 50Mi", "kubectl describe job"),
        ("pod security", "PodSecurity", 'violates PodSecurity "restricted:latest": host namespaces', "webhook"),
        ("admission policy", "AdmissionDenied", "images come from registry.corp only", "administrators"),
    ],
)
def test_r1_2_a_pod_that_is_refused_is_told_in_the_server_s_own_words(
    refused: dict[str, Refused], obstacle: str, reason: str, words: str, advice: str
) -> None:
    policy = refused[obstacle].policy
    stalled = policy.await_condition("Stalled", "True", reason)
    assert words in stalled["message"]
    assert advice in stalled["message"]
    assert refused[obstacle].job in stalled["message"]
    assert policy.condition("Ready")["status"] == "True"
    assert policy.condition("Running")["status"] == "True"
    assert words in policy.await_event(reason)


def test_a_pod_that_is_let_in_at_last_ends_the_stall(refused: dict[str, Refused]) -> None:
    found = refused["quota"]
    found.policy.await_condition("Stalled", "True", "QuotaExceeded")
    found.policies.kubectl.run("delete", "resourcequota", "none", "-n", found.policy.namespace)
    kubelet = Kubelet(found.policies.kubectl, found.policy.namespace)
    # The Job controller tries again after a pause that is longer each time.
    eventually(
        lambda: found.policies.kubectl.names("pods", found.policy.namespace),
        what="the Pod is made",
    )
    found.policy.await_status(lambda s: "Stalled" not in {c["type"] for c in s["conditions"]}, "not stalled any more")
    kubelet.finish(found.job, report())
    assert found.policy.await_record(found.job)["outcome"] == "Succeeded"


@pytest.mark.exhaustive
def test_a_priority_class_that_is_missing_is_told(
    cluster: Kubectl, namespace: str, start_controller: Callable[..., ControllerProcess]
) -> None:
    start_controller(namespace, SESSION_POLICY_JOB_PRIORITY_CLASS=ABSENT_CLASS)
    policy = Policies(cluster, namespace).ready()
    policy.request_run()
    assert ABSENT_CLASS in policy.await_condition("Stalled", "True", "PodNotCreated")["message"]


def test_a_job_that_somebody_suspended_is_told_until_it_goes_on(policies: Policies) -> None:
    policy = policies.ready()
    job = policy.request_run()
    where = ("job", job, "-n", policy.namespace, "--type=merge", "-p")
    policies.kubectl.run("patch", *where, json.dumps({"spec": {"suspend": True}}))
    assert f"kubectl patch job {job}" in policy.await_condition("Stalled", "True", "JobSuspended")["message"]
    policies.kubectl.run("patch", *where, json.dumps({"spec": {"suspend": False}}))
    policy.await_status(lambda s: "Stalled" not in {c["type"] for c in s["conditions"]}, "not stalled any more")


def event(policy: Policy, pod: dict[str, Any], message: str, component: str) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = pod["metadata"]
    told = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "told-"},
        "involvedObject": {
            "kind": "Pod",
            "name": metadata["name"],
            "namespace": policy.namespace,
            "uid": metadata["uid"],
        },
        "type": "Warning",
        "reason": "FailedMount",
        "message": message,
        "source": {"component": component},
        "firstTimestamp": now,
        "lastTimestamp": now,
    }
    policy.kubectl.run("create", "-n", policy.namespace, "-f", "-", stdin=json.dumps(told))


def test_a_volume_that_is_not_mounted_is_told_by_the_kubelet_s_words_and_nobody_else_s(policies: Policies) -> None:
    policy = policies.ready()
    job = policy.request_run()
    pod_name = Kubelet(policies.kubectl, policies.namespace).pod_of(job)
    pod = policy.api.get("pods", policy.namespace, pod_name)
    assert pod is not None
    event(policy, pod, 'MountVolume.SetUp failed for volume "logs": no such export', "kubelet")
    event(policy, pod, "forged", "somebody")
    long_ago = (datetime.now(UTC) - timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": long_ago}
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    container = {
        "name": "session-policy",
        "state": waiting,
        "ready": False,
        "restartCount": 0,
        "image": "",
        "imageID": "",
    }
    status = {"phase": "Pending", "conditions": [scheduled], "containerStatuses": [container]}
    policy.api.patch_status("pods", policy.namespace, pod_name, status)
    # A Pod that goes on waiting is no news; another change makes the controller look.
    policy.apply(cleanupBatchSize=500)
    stalled = policy.await_condition("Stalled", "True", "FailedMount")
    assert "no such export" in stalled["message"]
    assert "forged" not in json.dumps(policy.get())
