"""The chart's whole life on a real cluster: installed, tested, upgraded, rolled back, uninstalled, installed again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from policy.names import GROUP, REVOCATION_PLURAL
from tests.e2e import every_switch
from tests.e2e.application import RESOURCE, Application
from tests.e2e.operator_release import CRDS, NAMESPACE, RELEASE, TALKATIVE, OperatorRelease, merged
from tests.support import prometheus_kinds
from tests.support.chart import NAME, ROOT, render
from tests.support.kube import Kubectl, eventually

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("prometheus")]

REVOCATIONS = f"{REVOCATION_PLURAL}.{GROUP}"
PREVIOUS = ROOT / "tests" / "controlplane" / "releases" / "session-policy-operator-0.1.0.tgz"
ONE_ATTEMPT = {"retries": 0}  # no more than every switch allows
KINDS = (
    "deployments,services,configmaps,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,"
    "networkpolicies,poddisruptionbudgets,podmonitors,servicemonitors,prometheusrules"
)


@pytest.fixture(scope="module")
def prometheus(kubectl: Kubectl) -> Iterator[None]:
    """The kinds of the Prometheus operator, which the chart looks for."""
    with prometheus_kinds.served(kubectl):
        yield


@pytest.fixture
def release(prometheus: None, release: OperatorRelease) -> Iterator[OperatorRelease]:
    """The module's release, uninstalled after each test."""
    yield release
    if release.installed():
        release.uninstall()


def objects(kubectl: Kubectl) -> set[tuple[str, str]]:
    """Kind and namespace of all objects of the release, without its resource definitions."""
    found = kubectl.list(KINDS, selector=f"app.kubernetes.io/instance={RELEASE}")
    return {(o["kind"], o["metadata"].get("namespace", "")) for o in found}


def live(release: OperatorRelease, application: Application, values: dict[str, Any], others: dict[str, Any]) -> None:
    """Install, use, upgrade, roll back, uninstall and install again; nothing that was recorded may be lost."""
    release.install(values)
    application.apply_policy(job=ONE_ATTEMPT)
    application.wait_for("Ready")
    uid = application.policy()["metadata"]["uid"]
    recorded = [application.request_run()["jobUID"]]
    release.test()

    release.install(others)
    release.test()
    recorded.insert(0, application.request_run()["jobUID"])
    release.rollback()
    application.wait_for("Ready")

    # One run ends and another comes and goes while there is no controller.
    application.seed()
    application.hold_deletes()
    ended_meanwhile = application.start_run()
    application.await_job_running(ended_meanwhile)
    release.uninstall()
    assert objects(release.kubectl) == set()
    assert release.kubectl.names("customresourcedefinitions") >= CRDS
    application.release_deletes()
    application.await_job_end(ended_meanwhile)
    made_meanwhile = application.make_job()
    application.await_job_end(made_meanwhile)
    assert [run["jobUID"] for run in application.history()] == recorded

    release.install(values)
    for job in (ended_meanwhile, made_meanwhile):
        assert application.await_run(job)["outcome"] == "Succeeded"
    recorded = [made_meanwhile, ended_meanwhile, *recorded]
    assert [run["jobUID"] for run in application.history()] == recorded
    status = application.status()
    assert status["lastRun"]["trigger"] == "Manual"
    assert status["totals"]["runsSucceeded"] == len(recorded)
    assert application.policy()["metadata"]["uid"] == uid
    release.test()
    release.install(others)
    recorded.insert(0, application.request_run()["jobUID"])
    assert [run["jobUID"] for run in application.history()] == recorded


def test_r1_4_the_defaults_live_through_everything(application: Application, release: OperatorRelease) -> None:
    live(release, application, {}, merged(TALKATIVE, {"controller": {"replicas": 1}}))

    # Uninstalled for good, it leaves policies that nothing holds fast.
    made = objects(release.kubectl)
    assert {("ClusterRole", ""), ("PodMonitor", NAMESPACE), ("PrometheusRule", NAMESPACE)} <= made
    release.uninstall()
    cron_job = application.cron_job()["metadata"]["name"]
    assert not application.policy()["metadata"].get("finalizers")
    application.kubectl.run(
        *("delete", RESOURCE, application.name, "-n", application.namespace, "--wait=true", "--timeout=30s")
    )
    eventually(
        lambda: not application.kubectl.exists("cronjob", cron_job, application.namespace),
        what="the CronJob is collected",
    )


def test_r1_4_every_switch_turned_on_lives_through_everything(
    application: Application, release: OperatorRelease
) -> None:
    values = every_switch.values(application, release.version)
    others = merged(
        values,
        {
            "controller": {"replicas": 2},
            "monitoring": {"podMonitor": {"enabled": "auto"}, "serviceMonitor": {"enabled": "auto"}},
        },
    )
    with every_switch.prerequisites(release.kubectl, application):
        live(release, application, values, others)

        made = objects(release.kubectl)
        assert not [kind for kind, namespace in made if not namespace], "a release for some namespaces only"
        assert {
            ("ServiceMonitor", NAMESPACE),
            ("PrometheusRule", NAMESPACE),
            ("PodDisruptionBudget", NAMESPACE),
            ("NetworkPolicy", NAMESPACE),
            ("NetworkPolicy", application.namespace),
        } <= made
        assert release.kubectl.exists("configmap", f"{every_switch.NAME}-notes", NAMESPACE)

        # What the administrator adds to cleanup pods, and what policies may not choose.
        (pod, *_) = application.kubectl.list("pods", application.namespace, "team=platform")
        assert pod["spec"]["serviceAccountName"] == every_switch.ACCOUNT
        assert pod["spec"]["priorityClassName"] == every_switch.PRIORITY_CLASS
        assert pod["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
        application.apply_policy(job={**ONE_ATTEMPT, "nodeSelector": {"kubernetes.io/os": "linux"}})
        refused = application.await_condition("Ready", "False", "NotAllowed")
        assert "spec.job.nodeSelector" in refused["message"]
        release.uninstall()
        assert objects(release.kubectl) == set()


@pytest.fixture
def present_rights(kubectl: Kubectl, release: OperatorRelease) -> Iterator[None]:
    """What the present controller needs besides what the previous chart brings: its definitions and its rights."""
    name = "e2e-present-rights"
    account = {"kind": "ServiceAccount", "name": f"{RELEASE}-session-policy-operator", "namespace": NAMESPACE}
    (role,) = (o for o in render() if o["kind"] == "ClusterRole" and o["metadata"]["name"] == NAME)
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name}}
    kubectl.apply({**rbac, "kind": "ClusterRole", "rules": role["rules"]})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    kubectl.apply({**rbac, "kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [account]})
    if release.brings_crds and not kubectl.exists("crd", REVOCATIONS):
        # As a part of the release, so that an upgrade takes it over.
        kubectl.run("create", "-f", str(ROOT / "crds" / "sessionrevocations.yaml"))
        owner = (f"meta.helm.sh/release-name={RELEASE}", f"meta.helm.sh/release-namespace={NAMESPACE}")
        kubectl.run("annotate", "crd", REVOCATIONS, *owner)
        kubectl.run("label", "crd", REVOCATIONS, "app.kubernetes.io/managed-by=Helm")
    yield
    kubectl.run("delete", "clusterrole,clusterrolebinding", name)


@pytest.mark.usefixtures("present_rights")
def test_r1_4_the_previous_chart_is_upgraded_and_gone_back_to(
    application: Application, release: OperatorRelease
) -> None:
    """With the present images: what the previous chart sets and leaves behind is what an upgrade meets."""
    release.install(chart=PREVIOUS)
    application.apply_policy()
    application.wait_for("Ready")
    recorded = [application.request_run()["jobUID"]]

    release.install()
    assert len(release.pods()) == 2
    release.test()
    recorded.insert(0, application.request_run()["jobUID"])

    release.rollback()
    recorded.insert(0, application.request_run()["jobUID"])
    assert [run["jobUID"] for run in application.history()] == recorded
