"""The operator as a Helm release."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.helm import HelmFailed, helm
from tests.support.kube import Kubectl

CHART = Path(__file__).parents[2] / "charts" / "session-policy-operator"
CRD = "sessionpolicies.sessionpolicy.dev"
NAMESPACE = "e2e-session-policy-operator"
RELEASE = "e2e"
CLUSTER_SCOPED = ("namespaces", "customresourcedefinitions", "clusterroles", "clusterrolebindings")


def cluster_scoped_objects(kubectl: Kubectl) -> set[str]:
    """Names of the cluster's namespaces, resource definitions, roles and bindings."""
    return {name for kind in CLUSTER_SCOPED for name in kubectl.names(kind)}


def defined_elsewhere(kubectl: Kubectl) -> bool:
    """Whether the cluster has the resource definition from somewhere else than this release."""
    found = kubectl.list("customresourcedefinitions", selector="app.kubernetes.io/managed-by!=Helm")
    return CRD in {crd["metadata"]["name"] for crd in found}


@dataclass(frozen=True)
class OperatorRelease:
    """One installation of the chart."""

    kubectl: Kubectl
    version: str
    brings_crd: bool

    def install(self) -> None:
        """Install with the images under test, and wait until the controller is ready."""
        image = {"tag": self.version, "pullPolicy": "IfNotPresent"}
        values = {
            "crds": {"enabled": self.brings_crd},
            "controller": {"image": image, "logLevel": "debug", "resyncSeconds": 30},
            "job": {"image": image},
        }
        program = helm(self.kubectl.kubeconfig)
        try:
            program.install(CHART, values, name=RELEASE, namespace=NAMESPACE, timeout_seconds=120)
        except HelmFailed as failed:
            failed.add_note(self.kubectl.run("describe", "pods", "-n", NAMESPACE))
            failed.add_note(self.logs())
            raise

    def uninstall(self) -> None:
        """Uninstall the release; its namespace stays."""
        helm(self.kubectl.kubeconfig).uninstall(name=RELEASE, namespace=NAMESPACE, timeout_seconds=60)

    def installed(self) -> bool:
        """Whether the release's Deployment is there."""
        return bool(self.kubectl.list("deployments", NAMESPACE))

    def logs(self) -> str:
        """What the controller has logged."""
        pods = self.kubectl.names("pods", NAMESPACE)
        return "\n".join(self.kubectl.run("logs", pod, "-n", NAMESPACE) for pod in pods)

    def remove(self) -> None:
        """Uninstall what is left, and the namespace."""
        if self.installed():
            self.uninstall()
        self.kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s")
