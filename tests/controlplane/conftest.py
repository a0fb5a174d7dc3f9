"""The controller as a real process against the real API server, with exactly the rights that the chart gives it.

There is no kubelet: Pods stay pending until a test writes their status as a kubelet would (`kubelet.py`). Everything
else is real: schema and CEL, server-side apply, the Job controller, the CronJob controller, garbage collection.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.controlplane.controller_process import ControllerProcess
from tests.controlplane.kubelet import Kubelet
from tests.controlplane.policies import Policies
from tests.support.controlplane import ControlPlane
from tests.support.helm import helm
from tests.support.kube import Kubectl, eventually
from tests.support.operator_access import grant_operator_access, serve_policies
from tests.support.shared import once

CHART = Path(__file__).parents[2] / "charts" / "session-policy-operator"

RELEASE_NAMESPACE = "default"

StartController = Callable[..., ControllerProcess]


@dataclass
class Candidates:
    """Controllers that compete for one Lease, the chart's own, and serve one namespace."""

    kubectl: Kubectl
    lease_name: str
    start: StartController
    namespace: str

    def add(self, **environment: str) -> ControllerProcess:
        """Start one more and wait until its endpoint answers."""
        election = {
            "SESSION_POLICY_LEADER_ELECTION": "true",
            "SESSION_POLICY_LEASE_NAME": self.lease_name,
            "SESSION_POLICY_LEASE_NAMESPACE": RELEASE_NAMESPACE,
            "SESSION_POLICY_POD_NAME": f"pod-{secrets.token_hex(2)}",
        }
        return self.start(self.namespace, **election, **environment)

    def lease(self) -> dict[str, Any]:
        """The Lease's spec."""
        spec: dict[str, Any] = self.kubectl.get("lease", self.lease_name, RELEASE_NAMESPACE)["spec"]
        return spec

    def await_leader(self, *among: ControllerProcess) -> ControllerProcess:
        """The one of these that leads, once there is one."""
        return eventually(
            lambda: next((process for process in among if process.is_leader()), None),
            what="one of the controllers leads",
        )


@pytest.fixture(scope="session")
def cluster(control_plane: ControlPlane) -> Kubectl:
    """kubectl with all rights, on an API server that serves our kinds."""
    kubectl = Kubectl(control_plane.kubeconfig)

    def serve() -> str:
        serve_policies(kubectl)
        return ""

    once(control_plane.directory / "policies-served", serve)
    return kubectl


@pytest.fixture(scope="session")
def installation() -> list[dict[str, Any]]:
    """What the chart installs by default, as release ``test``."""
    return helm().render(CHART, {}, name="test", namespace=RELEASE_NAMESPACE)


@pytest.fixture(scope="session")
def operator_kubeconfig(cluster: Kubectl, control_plane: ControlPlane, installation: list[dict[str, Any]]) -> Path:
    """A kubeconfig with the rights that the chart gives the controller and no others."""

    def grant() -> str:
        return str(grant_operator_access(cluster, control_plane, installation, RELEASE_NAMESPACE))

    return Path(once(control_plane.directory / "operator-access", grant))


@pytest.fixture
def operator_kubeconfig_via(operator_kubeconfig: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes the operator's kubeconfig with the API server at another URL, such as a proxy's."""

    def via(url: str) -> Path:
        config = yaml.safe_load(operator_kubeconfig.read_text())
        for entry in config["clusters"]:
            entry["cluster"]["server"] = url
        path = tmp_path / "operator.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    return via


@pytest.fixture
def namespace(cluster: Kubectl) -> Iterator[str]:
    """A namespace of the test's own."""
    with cluster.temporary_namespace() as name:
        yield name


@pytest.fixture
def own(cluster: Kubectl, namespace: str) -> Policies:
    """Policies in the test's own namespace, which only controllers serve that the test starts."""
    return Policies(cluster, namespace)


@pytest.fixture
def kubelet(cluster: Kubectl, namespace: str) -> Kubelet:
    """Plays the kubelet of the test's own namespace."""
    return Kubelet(cluster, namespace)


@pytest.fixture
def start_controller(operator_kubeconfig: Path, tmp_path: Path) -> Iterator[StartController]:
    """Starts controllers that serve given namespaces; those left over end with the test."""
    numbers = itertools.count()
    with ExitStack() as stack:

        def start(*namespaces: str, **environment: str) -> ControllerProcess:
            process = ControllerProcess(
                operator_kubeconfig, tmp_path / f"controller-{next(numbers)}.log", namespaces, environment
            )
            stack.callback(process.kill)
            process.start()
            return process

        yield start


@pytest.fixture(scope="session")
def shared_namespace(cluster: Kubectl) -> Iterator[str]:
    """The namespace that the shared controller serves."""
    with cluster.temporary_namespace("shared") as name:
        yield name


@pytest.fixture(scope="session")
def controller(
    shared_namespace: str, operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControllerProcess]:
    """A running controller for all tests that do not stop it: starting one for each would take minutes."""
    log = tmp_path_factory.mktemp("controller") / "controller.log"
    process = ControllerProcess(operator_kubeconfig, log, (shared_namespace,), {})
    process.start()
    yield process
    process.stop()


@pytest.fixture
def policies(cluster: Kubectl, shared_namespace: str, controller: ControllerProcess) -> Policies:
    """Policies in the namespace of the running controller."""
    assert controller.is_running()
    return Policies(cluster, shared_namespace)


@pytest.fixture
def candidates(
    cluster: Kubectl, namespace: str, installation: list[dict[str, Any]], start_controller: StartController
) -> Iterator[Candidates]:
    """No controllers yet, and no Lease."""
    (deployment,) = [o for o in installation if o["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    lease_name = {e["name"]: e.get("value") for e in container["env"]}["SESSION_POLICY_LEASE_NAME"]
    yield Candidates(cluster, lease_name, start_controller, namespace)
    cluster.run("delete", "lease", lease_name, "-n", RELEASE_NAMESPACE, "--ignore-not-found")
