"""The operator as a Helm release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy.crd import DEFINITIONS
from policy.names import GROUP
from tests.support.chart import CHART
from tests.support.helm import HelmFailed, helm
from tests.support.kube import Kubectl, eventually

CRDS = frozenset(f"{definition.plural}.{GROUP}" for definition in DEFINITIONS)
NAMESPACE = "e2e-session-policy-operator"
APPLICATIONS = "e2e-app"
RELEASE = "e2e"
TALKATIVE: dict[str, Any] = {"controller": {"logLevel": "debug", "resyncSeconds": 30}}

_CONTROLLERS = "app.kubernetes.io/name=session-policy-operator,app.kubernetes.io/component=controller"
_PORT = 8080


def defined_elsewhere(kubectl: Kubectl) -> bool:
    """Whether the cluster has one of our resource definitions from somewhere else than this release."""
    found = [crd["metadata"] for crd in kubectl.list("customresourcedefinitions") if crd["metadata"]["name"] in CRDS]
    return any(crd.get("annotations", {}).get("meta.helm.sh/release-namespace") != NAMESPACE for crd in found)


def merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a chart with others put over them, as Helm does it: maps are merged, all else is replaced."""
    result = dict(values)
    for name, value in over.items():
        below = result.get(name)
        result[name] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


@dataclass(frozen=True)
class OperatorRelease:
    """A release of the chart, in a namespace that takes restricted pods only.

    Attributes:
        kubectl: on the cluster.
        version: tag of the images under test.
        brings_crds: whether the resource definitions come with it, and go with `remove`.
    """

    kubectl: Kubectl
    version: str
    brings_crds: bool

    def prepare_namespace(self) -> None:
        """Make the namespace, as an administrator would."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})

    def install(self, values: Mapping[str, Any] | None = None, *, chart: Path = CHART) -> None:
        """Install or upgrade with the images under test, and wait until the controllers are ready."""
        image = {"tag": self.version, "pullPolicy": "IfNotPresent"}
        under_test = {
            "crds": {"enabled": self.brings_crds},
            "controller": {"image": image},
            "job": {"image": image},
        }
        combined = merged(under_test, values or {})
        program = helm(self.kubectl.kubeconfig)
        try:
            program.install(chart, combined, name=RELEASE, namespace=NAMESPACE, timeout_seconds=120)
        except HelmFailed as failed:
            failed.add_note(self.kubectl.run("describe", "pods", "-n", NAMESPACE))
            failed.add_note(self.logs("--tail=20"))
            raise

    def rollback(self) -> None:
        """Go back to the revision before, and wait until its controllers are ready."""
        helm(self.kubectl.kubeconfig).rollback(name=RELEASE, namespace=NAMESPACE, timeout_seconds=120)
        self.await_rollout()

    def test(self) -> None:
        """Let the release prove that it works: `helm test`."""
        try:
            helm(self.kubectl.kubeconfig).test(name=RELEASE, namespace=NAMESPACE, timeout_seconds=120)
        except HelmFailed as failed:
            failed.add_note(self.logs("--tail=20"))
            raise

    def uninstall(self) -> None:
        """Uninstall the release; its namespace stays."""
        helm(self.kubectl.kubeconfig).uninstall(name=RELEASE, namespace=NAMESPACE, timeout_seconds=60)

    def remove(self) -> None:
        """Leave nothing of it: release, namespace and, if they came with it, the resource definitions."""
        if self.installed():
            self.uninstall()
        self.kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s")
        if self.brings_crds:
            self.kubectl.run("delete", "crd", *CRDS, "--ignore-not-found", "--timeout=60s")

    def installed(self) -> bool:
        """Whether the release's Deployment is there."""
        return bool(self.kubectl.list("deployments", NAMESPACE))

    def deployment(self) -> dict[str, Any]:
        """The release's Deployment."""
        (found,) = self.kubectl.list("deployments", NAMESPACE)
        return found

    def await_rollout(self) -> None:
        """Wait until all controllers are those of the present revision, and ready."""
        name = self.deployment()["metadata"]["name"]
        self.kubectl.run("rollout", "status", f"deployment/{name}", "-n", NAMESPACE, "--timeout=120s")

    def pods(self) -> set[str]:
        """Names of the controllers' pods, without those that are on their way out."""
        pods = [pod["metadata"] for pod in self.kubectl.list("pods", NAMESPACE, _CONTROLLERS)]
        return {pod["name"] for pod in pods if "deletionTimestamp" not in pod}

    def leader(self) -> str:
        """Name of the pod that leads, or of the last one that did, once there is one."""

        def holder() -> str:
            leases = self.kubectl.list("leases", NAMESPACE)
            identity: str = leases[0]["spec"].get("holderIdentity", "") if leases else ""
            return identity.rpartition("_")[0]

        return eventually(holder, what="a controller holds the Lease")

    def metrics(self, pod: str) -> str:
        """What Prometheus would scrape from a controller."""
        return self.kubectl.run("get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{_PORT}/proxy/metrics")

    def logs(self, *options: str) -> str:
        """What the controllers have logged."""
        return "\n".join(self.kubectl.run("logs", pod, "-n", NAMESPACE, *options) for pod in self.pods())

    def denials(self, namespace: str) -> list[str]:
        """What the controllers logged as forbidden to them, but for what tests provoke in namespaces of their own."""
        forbidden = [line for line in self.logs().splitlines() if "forbidden" in line.lower()]
        return [line for line in forbidden if namespace in line or APPLICATIONS not in line]
