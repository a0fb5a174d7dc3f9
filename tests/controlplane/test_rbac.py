"""The chart's rules are exactly what the operator needs: no request is refused, and no right is left unused.

The operator runs as the chart installs it, with the chart's environment and under the chart's service account, through
a scenario that makes it do everything it can do. The API server's audit log tells what it asked for.

A new rule in the chart makes these tests fail until the scenario uses it: add a step to `SCENARIO`. A new request of
the operator makes them fail until the chart allows it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane.controller_process import ControllerProcess
from tests.controlplane.kubelet import Kubelet, report
from tests.controlplane.policies import Policies
from tests.controlplane.revocations import Revocation
from tests.controlplane.revocations import report as revocation_report
from tests.controlplane.somebody import Somebody
from tests.support.audit import AuditLog, resource_of
from tests.support.chart import CHART, is_hook
from tests.support.controlplane import ControlPlane
from tests.support.helm import helm
from tests.support.kube import Kubectl, eventually
from tests.support.operator_access import RBAC_KINDS, grant_operator_access

_RELEASE_NAMESPACE = "default"

# What every authenticated user may read: which APIs the server has.
_DISCOVERY = ("/api", "/apis", "/version", "/openapi")

_BOUND_KINDS = {"RoleBinding": "Role", "ClusterRoleBinding": "ClusterRole"}


@dataclass(frozen=True, order=True)
class Right:
    """A verb on a resource.

    Attributes:
        namespace: where; empty for the whole cluster.
        group: API group; empty for the core.
        resource: plural, with the subresource if it is one.
        verb: as in RBAC.
    """

    namespace: str
    group: str
    resource: str
    verb: str


def step_a_policy_gets_its_cron_job(policies: Policies, somebody: Somebody, kubelet: Kubelet) -> None:
    """Lists and watches everything; reads and creates a CronJob, writes a status, creates an Event."""
    policy = policies.ready("plain")
    policy.await_event("CronJobCreated")


def step_an_edit_and_drift(policies: Policies, somebody: Somebody, kubelet: Kubelet) -> None:
    """Patches a CronJob."""
    policy = policies.ready("edited")
    policy.apply(schedule="1 2 3 4 5")
    eventually(lambda: policy.cron_job()["spec"]["schedule"] == "1 2 3 4 5", what="the edit has arrived")
    added = {"op": "add", "path": "/spec/jobTemplate/spec/template/spec/hostNetwork", "value": True}
    somebody.change("cronjobs", policies.namespace, policy.cron_job_name, [added])
    policy.await_event("DriftCorrected")
    policies.kubectl.run("delete", "cronjob", policy.cron_job_name, "-n", policies.namespace)
    eventually(policy.has_cron_job, what="the CronJob is made anew")


def step_a_requested_run(policies: Policies, somebody: Somebody, kubelet: Kubelet) -> None:
    """Creates a Job; reads Jobs and Pods."""
    policy = policies.ready("requested")
    job = policy.request_run()
    kubelet.finish(job, report())
    policy.await_record(job)
    policy.await_event("RunSucceeded")


def step_a_failed_run(policies: Policies, somebody: Somebody, kubelet: Kubelet) -> None:
    """Reads a Job that was made by hand, and a Pod that cannot start."""
    policy = policies.ready("failed")
    job = policy.make_job_by_hand()
    kubelet.wait(job, "ImagePullBackOff", "not found")
    policy.await_condition("Stalled", "True")
    kubelet.finish(job, exit_code=1)
    policy.await_record(job)


def step_a_refused_policy(policies: Policies, somebody: Somebody, kubelet: Kubelet) -> None:
    """Tries to create a CronJob that the server refuses."""
    policy = policies.named("refused")
    policy.apply(schedule="nonsense")
    policy.await_condition("Ready", "False", "InvalidSchedule")


def step_a_deleted_policy(policies: Policies, somebody: Somebody, kubelet: Kubelet) -> None:
    """Needs no right at all: owner references clean up."""
    policy = policies.ready("deleted")
    policies.kubectl.run("delete", "spol", policy.name, "-n", policies.namespace)
    eventually(lambda: not policy.has_cron_job(), what="the CronJob is collected")


def step_a_run_whose_job_is_there_already(policies: Policies, somebody: Somebody, kubelet: Kubelet) -> None:
    """Reads the Job that has the name of a requested run: the answer to its creation may have been lost."""
    policy = policies.ready("repeated")
    job = policy.request_run("again")
    kubelet.finish(job, report())
    policy.await_record(job)
    where = ("patch", "spol", policy.name, "-n", policies.namespace, "--subresource=status", "--type=json", "-p")
    policies.kubectl.run(*where, json.dumps([{"op": "remove", "path": "/status/lastHandledRunRequest"}]))
    # The status is not watched for changes by others; an edit has the policy looked at.
    policy.apply(schedule="2 3 4 5 6")
    policy.await_status(lambda s: s.get("lastHandledRunRequest") == "again", "the run is found")


def step_a_revocation(policies: Policies, somebody: Somebody, kubelet: Kubelet) -> None:
    """Reads, patches the status of, and deletes a revocation; resumes its Job."""
    revocation = Revocation(
        policies.kubectl, policies.namespace, policies.ready("shop").name, ttlSecondsAfterFinished=0
    )
    revocation.apply()
    kubelet.finish(revocation.await_job(), revocation_report(found=1, revoked=1))
    eventually(lambda: revocation.find() is None, what="the revocation is deleted")


def step_a_pod_that_cannot_be_made(policies: Policies, somebody: Somebody, kubelet: Kubelet) -> None:
    """Reads the Events that tell why."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    policies.kubectl.apply(quota, policies.namespace)
    eventually(
        lambda: policies.kubectl.get("resourcequota", "none", policies.namespace).get("status", {}).get("hard"),
        what="the quota is known",
    )
    policy = policies.ready("squeezed")
    policy.make_job_by_hand()
    policy.await_condition("Stalled", "True", "QuotaExceeded")
    policies.kubectl.run("delete", "resourcequota", "none", "-n", policies.namespace)


Step = Callable[[Policies, Somebody, Kubelet], None]

SCENARIO: tuple[Step, ...] = (
    step_a_policy_gets_its_cron_job,
    step_an_edit_and_drift,
    step_a_requested_run,
    step_a_failed_run,
    step_a_refused_policy,
    step_a_deleted_policy,
    step_a_run_whose_job_is_there_already,
    step_a_revocation,
    step_a_pod_that_cannot_be_made,
)


def granted(objects: list[dict[str, Any]], account: str) -> set[Right]:
    """All rights that the chart's objects give to the service account."""
    rights: set[Right] = set()
    for binding in objects:
        if binding["kind"] not in _BOUND_KINDS or account not in {s["name"] for s in binding["subjects"]}:
            continue
        assert binding["roleRef"]["kind"] == _BOUND_KINDS[binding["kind"]]
        namespace = binding["metadata"].get("namespace", "")
        (role,) = [
            o
            for o in objects
            if (o["kind"], o["metadata"]["name"]) == (binding["roleRef"]["kind"], binding["roleRef"]["name"])
            and o["metadata"].get("namespace", "") == namespace
        ]
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], "name what is needed"
            rights |= {
                Right(namespace, group, resource, verb)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    return rights


def requests(log: AuditLog, user: str) -> list[dict[str, Any]]:
    """What this user has asked of the API server; a watch counts from its beginning."""
    return [entry for entry in log.entries() if entry["user"]["username"] == user]


def used(asked: list[dict[str, Any]], rights: set[Right]) -> set[Right]:
    """The rights that these requests needed: in the whole cluster, where the right is given in the whole cluster."""
    needed = set()
    for entry in asked:
        if (to := entry.get("objectRef")) is None or "resource" not in to:
            assert entry["requestURI"].startswith(_DISCOVERY), entry["requestURI"]
            continue
        resource = resource_of(to)
        everywhere = Right("", to.get("apiGroup", ""), resource, entry["verb"])
        local = Right(to.get("namespace", ""), to.get("apiGroup", ""), resource, entry["verb"])
        needed.add(local if local in rights else everywhere if everywhere in rights else local)
    return needed


def environment(deployment: Mapping[str, Any]) -> dict[str, str]:
    """The environment that the chart gives the controller, but for its port: it runs on this machine."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    fields = {"metadata.name": "controller-0", "metadata.namespace": _RELEASE_NAMESPACE}
    found = {}
    for variable in container["env"]:
        if "value" in variable:
            found[variable["name"]] = variable["value"]
        elif field := variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath"):
            found[variable["name"]] = fields[field]
    return {name: value for name, value in found.items() if not name.endswith("_PORT")}


@pytest.fixture
def kubectl(cluster: Kubectl, own_control_plane: ControlPlane) -> Kubectl:
    """On a control plane of its own: an operator of the whole cluster would serve the policies of other tests too."""
    # Namespaces end slowly. Nothing of other tests may concern this one's operator.
    eventually(lambda: not cluster.list("spol"), what="no policy is left of tests before")
    return cluster


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    with kubectl.temporary_namespace() as name:
        yield name
        # Namespaces end slowly. Nothing of this one may concern the next test's operator.
        kubectl.run("delete", "spol", "--all", "-n", name)


@pytest.fixture
def somebody(kubectl: Kubectl) -> Somebody:
    return Somebody(kubectl.kubeconfig)


@dataclass(frozen=True)
class Release:
    """The chart's objects on the cluster, and its controller outside of it."""

    objects: list[dict[str, Any]]
    account: str
    process: ControllerProcess

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{_RELEASE_NAMESPACE}:{self.account}"


@pytest.fixture(params=["the whole cluster", "one namespace"])
def release(
    request: pytest.FixtureRequest, kubectl: Kubectl, control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> Iterator[Release]:
    values = {"watchNamespaces": [namespace]} if request.param == "one namespace" else {}
    # Named like the test's namespace, so that the next operator has another account: the audit log has both.
    objects = helm().render(CHART, values, name=namespace, namespace=_RELEASE_NAMESPACE)
    kubeconfig = grant_operator_access(kubectl, control_plane, objects, _RELEASE_NAMESPACE)
    (deployment,) = [o for o in objects if o["kind"] == "Deployment"]
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    process = ControllerProcess(kubeconfig, tmp_path / "controller.log", (), environment(deployment))
    process.start()
    try:
        yield Release([o for o in objects if not is_hook(o)], account, process)
    finally:
        process.kill()
        for manifest in (o for o in objects if o["kind"] in RBAC_KINDS and not is_hook(o)):
            where = ["-n", manifest["metadata"]["namespace"]] if "namespace" in manifest["metadata"] else []
            kubectl.run("delete", manifest["kind"], manifest["metadata"]["name"], *where, "--wait=false")


@pytest.mark.representative(release=["the whole cluster"])
def test_r1_4_the_chart_s_rules_are_what_the_operator_needs_and_no_more(
    kubectl: Kubectl, control_plane: ControlPlane, namespace: str, release: Release, somebody: Somebody
) -> None:
    policies = Policies(kubectl, namespace)
    kubelet = Kubelet(kubectl, namespace)
    for step in SCENARIO:
        step(policies, somebody, kubelet)
    assert release.process.stop() == 0
    rights = granted(release.objects, release.account)
    asked = requests(control_plane.audit_log, release.user)
    refused = [entry for entry in asked if entry.get("responseStatus", {}).get("code") in (401, 403)]
    assert [(entry["verb"], entry["requestURI"]) for entry in refused] == []
    needed = used(asked, rights)
    assert sorted(needed - rights) == [], "the operator asks for what the chart does not allow"
    assert sorted(rights - needed) == [], "the chart allows what the operator does not ask for"
