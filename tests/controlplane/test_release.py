"""The chart as a release, and the plain manifests, on a real API server: installed, upgraded, rolled back, removed.

These tests replace the resource definitions, so they have a control plane of their own.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from policy.names import GROUP, PLURAL
from tests.controlplane.api import Api
from tests.controlplane.policies import manifest
from tests.support.chart import CHART, ROOT
from tests.support.controlplane import ControlPlane, ControlPlaneUnavailable
from tests.support.helm import Helm, HelmFailed, field_manager, helm
from tests.support.kube import Kubectl, eventually
from tests.support.prometheus_kinds import stub_definition
from tools.chart_lint import EVERYTHING

# One worker for all of them: each starts a control plane.
pytestmark = pytest.mark.xdist_group("release")

PREVIOUS = Path(__file__).with_name("releases") / "session-policy-operator-0.1.0.tgz"
CRD = f"{PLURAL}.{GROUP}"
RELEASE = "operator"
DEPLOYMENT = "operator-session-policy-operator"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"

# What a controller of the previous release had written.
RUN: dict[str, Any] = {
    "jobName": "shop-1",
    "jobUID": "75ab2988-0000-4000-8000-000000000001",
    "trigger": "Schedule",
    "outcome": "Succeeded",
    "reason": "Completed",
    "message": "5 deleted",
    "startTime": "2026-11-20T09:50:00Z",
    "completionTime": "2026-11-20T09:50:12Z",
    "durationSeconds": 12,
}
STATUS: dict[str, Any] = {"observedGeneration": 1, "cronJobName": "shop", "consecutiveFailures": 0, "history": [RUN]}


def holds(whole: Any, part: Any) -> bool:
    """Whether nothing of the part is lost; a new definition may add defaults."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(holds(whole.get(key), value) for key, value in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and len(whole) == len(part) and all(map(holds, whole, part))
    return bool(whole == part)


@dataclass
class Release:
    """A release in a namespace that takes restricted pods only."""

    kubectl: Kubectl
    program: Helm
    namespace: str

    def install(self, chart: Path = CHART, **values: Any) -> None:
        """Install or upgrade it. Without a kubelet no pod becomes ready, so nothing is waited for."""
        self.program.install(chart, values, name=RELEASE, namespace=self.namespace, timeout_seconds=240, wait=False)

    def rollback(self) -> None:
        self.program.rollback(name=RELEASE, namespace=self.namespace, timeout_seconds=240)

    def uninstall(self) -> None:
        self.program.uninstall(name=RELEASE, namespace=self.namespace, timeout_seconds=240)

    def deployment(self) -> dict[str, Any]:
        return self.kubectl.get("deployment", DEPLOYMENT, self.namespace)

    def await_pods(self, count: int) -> None:
        """Wait until so many pods are admitted."""
        eventually(
            lambda: len(self.kubectl.names("pods", self.namespace)) == count, what=f"{count} pods of the controller"
        )


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    try:
        started = ControlPlane.start()
    except ControlPlaneUnavailable as reason:
        pytest.skip(str(reason))
    yield started
    started.stop()


@pytest.fixture(scope="module")
def kubectl(plane: ControlPlane) -> Kubectl:
    return Kubectl(plane.kubeconfig)


@pytest.fixture
def release(kubectl: Kubectl, plane: ControlPlane) -> Iterator[Release]:
    with kubectl.temporary_namespace("release") as namespace:
        kubectl.run("label", "namespace", namespace, RESTRICTED)
        found = Release(kubectl, helm(plane.kubeconfig), namespace)
        yield found
        found.uninstall()
    kubectl.run("delete", "crd", "-l", "app.kubernetes.io/name=session-policy-operator", "--timeout=240s")


def apply_policy_with_history(kubectl: Kubectl, namespace: str) -> dict[str, Any]:
    """A policy and its status, as they are stored."""
    kubectl.run("wait", "--for=condition=Established", "crd", CRD, "--timeout=240s")
    eventually(lambda: "sessionpolicies" in kubectl.run("api-resources", f"--api-group={GROUP}"), what="the API")
    kubectl.apply(manifest("shop"), namespace)
    api = Api(kubectl.kubeconfig)
    api.patch_status("spol", namespace, "shop", STATUS)
    return kubectl.get("spol", "shop", namespace)


def test_r1_4_an_upgrade_keeps_policies_and_their_history(release: Release) -> None:
    release.install(PREVIOUS)
    before = apply_policy_with_history(release.kubectl, release.namespace)
    assert release.deployment()["spec"]["strategy"] == {"type": "Recreate"}
    definition = release.kubectl.get("crd", CRD)["metadata"]

    release.install()

    after = release.kubectl.get("spol", "shop", release.namespace)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert holds(after["spec"], before["spec"])
    assert holds(after["status"], STATUS)
    upgraded = release.kubectl.get("crd", CRD)["metadata"]
    assert upgraded["uid"] == definition["uid"]
    assert upgraded["labels"]["helm.sh/chart"] != definition["labels"]["helm.sh/chart"]
    spec = release.deployment()["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    named = [entry["name"] for entry in spec["template"]["spec"]["containers"][0]["env"]]
    assert "SESSION_POLICY_HTTP_PORT" in named
    assert "SESSION_POLICY_HEALTH_PORT" not in named


@pytest.mark.exhaustive
def test_r1_4_an_upgrade_can_be_rolled_back(release: Release) -> None:
    release.install(PREVIOUS)
    before = apply_policy_with_history(release.kubectl, release.namespace)
    release.install()

    release.rollback()

    spec = release.deployment()["spec"]
    assert spec["strategy"] == {"type": "Recreate"}
    assert spec["replicas"] == 1
    assert release.kubectl.get("spol", "shop", release.namespace)["metadata"]["uid"] == before["metadata"]["uid"]


@pytest.mark.exhaustive
def test_r1_4_uninstalling_keeps_policies_and_installing_again_takes_them_over(release: Release) -> None:
    release.install()
    before = apply_policy_with_history(release.kubectl, release.namespace)

    release.uninstall()

    assert not release.kubectl.exists("deployment", DEPLOYMENT, release.namespace)
    left = release.kubectl.get("spol", "shop", release.namespace)
    assert left["metadata"]["uid"] == before["metadata"]["uid"]
    assert left["status"] == before["status"]
    release.install()
    assert release.kubectl.get("spol", "shop", release.namespace)["metadata"]["uid"] == before["metadata"]["uid"]


def test_r1_4_the_controllers_pods_are_admitted_under_pod_security_restricted(release: Release) -> None:
    release.install()
    release.await_pods(2)


@pytest.mark.exhaustive
def test_r1_4_every_switch_at_once_is_accepted(release: Release) -> None:
    kubectl = release.kubectl
    for kind in ("PodMonitor", "PrometheusRule"):
        kubectl.apply(stub_definition(kind))
        kubectl.run("wait", "--for=condition=Established", "crd", f"{kind.lower()}s.monitoring.coreos.com")
    values = {
        **EVERYTHING,
        "watchNamespaces": [release.namespace, "default"],
        "rbac": {"aggregateToDefaultRoles": False},
        # An object of its own in the release's namespace, whatever that is.
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "further", "namespace": "{{ .Release.Namespace }}"},
            }
        ],
    }
    release.install(**values)
    assert kubectl.exists("networkpolicy", "sessions-jobs", "default")
    assert kubectl.exists("configmap", "further", release.namespace)
    owned = "app.kubernetes.io/instance=" + RELEASE
    assert kubectl.list("clusterroles", selector=owned) == []
    assert kubectl.list("clusterrolebindings", selector=owned) == []


@pytest.mark.exhaustive
def test_monitors_and_alerts_come_with_the_kinds_they_need(release: Release) -> None:
    kubectl = release.kubectl
    for kind in ("PodMonitor", "ServiceMonitor", "PrometheusRule"):
        kubectl.run("delete", "crd", f"{kind.lower()}s.monitoring.coreos.com", "--ignore-not-found", "--timeout=240s")
    release.install()
    assert kubectl.exists("deployment", DEPLOYMENT, release.namespace)

    kubectl.apply(stub_definition("PodMonitor"))
    kubectl.run("wait", "--for=condition=Established", "crd", "podmonitors.monitoring.coreos.com")
    release.install()
    assert kubectl.exists("podmonitors", DEPLOYMENT, release.namespace)

    for kind in ("ServiceMonitor", "PrometheusRule"):
        kubectl.apply(stub_definition(kind))
        kubectl.run("wait", "--for=condition=Established", "crd", f"{kind.lower()}s.monitoring.coreos.com")
    release.install(monitoring={"serviceMonitor": {"enabled": "auto"}})
    assert kubectl.exists("servicemonitors", DEPLOYMENT, release.namespace)
    assert kubectl.exists("prometheusrules", DEPLOYMENT, release.namespace)
    assert not kubectl.exists("podmonitors", DEPLOYMENT, release.namespace), "everything would be counted twice"


@contextmanager
def plain_manifests(kubectl: Kubectl) -> Iterator[tuple[str, str]]:
    """The manifests applied, as their directory and their namespace."""
    directory = str(ROOT / "manifests")
    namespace = yaml.safe_load((ROOT / "manifests" / "namespace.yaml").read_text())["metadata"]["name"]
    # The namespace of the test before may be in deletion.
    eventually(lambda: not kubectl.exists("namespace", namespace), what=f"the namespace {namespace} gone")
    try:
        kubectl.run("apply", "--server-side", "-k", directory)
        yield directory, namespace
    finally:
        kubectl.run("delete", "-k", directory, "--ignore-not-found", "--wait=false")


def test_r1_4_the_plain_manifests_install_the_operator(kubectl: Kubectl) -> None:
    with plain_manifests(kubectl) as (directory, namespace):
        eventually(lambda: len(kubectl.names("pods", namespace)) == 2, what="two pods of the controller")
        assert kubectl.exists("crd", CRD)
        again = kubectl.run("apply", "--server-side", "-k", directory)
        assert "created" not in again


@pytest.mark.exhaustive
def test_k8_8_helm_takes_over_the_plain_manifests_as_the_page_says(kubectl: Kubectl, plane: ControlPlane) -> None:
    with plain_manifests(kubectl) as (_, namespace):
        name = namespace
        apply_policy_with_history(kubectl, namespace)
        before = {kind: kubectl.get(kind, found, namespace) for kind, found in (("deployment", name), ("spol", "shop"))}
        with pytest.raises(HelmFailed, match="invalid ownership metadata"):
            install(plane, name, namespace)
        for command in taking_over():
            kubectl.run(*command)
        install(plane, name, namespace)
        for kind, was in before.items():
            assert kubectl.get(kind, was["metadata"]["name"], namespace)["metadata"]["uid"] == was["metadata"]["uid"]
        (container,) = kubectl.get("deployment", name, namespace)["spec"]["template"]["spec"]["containers"]
        assert container["image"].startswith("registry.example.com/")
        helm(plane.kubeconfig).uninstall(name=name, namespace=namespace, timeout_seconds=240)
        assert not kubectl.exists("deployment", name, namespace)
        assert holds(kubectl.get("spol", "shop", namespace)["status"], STATUS)


def install(plane: ControlPlane, name: str, namespace: str) -> None:
    """The chart, with an image that is not the manifests'."""
    values = {"controller": {"image": {"registry": "registry.example.com"}}}
    helm(plane.kubeconfig).install(CHART, values, name=name, namespace=namespace, timeout_seconds=240, wait=False)


def taking_over() -> list[list[str]]:
    """The kubectl commands by which docs/how-to/install.md hands the manifests' objects to Helm."""
    _, _, section = (ROOT / "docs" / "how-to" / "install.md").read_text().partition("### From the manifests to Helm\n")
    block = section.partition("```sh\n")[2].partition("```")[0].replace("\\\n", " ")
    words = shlex.split(block.partition("helm install")[0].replace('"helm"', f'"{field_manager()}"'))
    starts = [number for number, word in enumerate(words) if word == "kubectl"]
    commands = [words[start + 1 : end] for start, end in zip(starts, [*starts[1:], len(words)], strict=True)]
    return [[str(ROOT / "manifests") if word == "manifests" else word for word in command] for command in commands]
