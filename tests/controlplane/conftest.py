"""The controller as a real process against the real API server, with exactly the rights that the chart gives it.

There is no kubelet: Pods stay pending until a test writes their status as a kubelet would (`kubelet.py`). Everything
else is real: schema and CEL, server-side apply, the Job controller, the CronJob controller, garbage collection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from policy.crd import crd
from policy.names import GROUP, PLURAL
from tests.controlplane.controller_process import ControllerProcess
from tests.controlplane.policies import Policies
from tests.support.chart import is_hook
from tests.support.controlplane import ControlPlane
from tests.support.helm import helm
from tests.support.kube import Kubectl, eventually

CHART = Path(__file__).parents[2] / "charts" / "session-policy-operator"

StartController = Callable[..., ControllerProcess]


@pytest.fixture(scope="session")
def cluster(control_plane: ControlPlane) -> Kubectl:
    """kubectl with all rights, on an API server that serves SessionPolicies."""
    kubectl = Kubectl(control_plane.kubeconfig)
    kubectl.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(crd()))
    # `kubectl wait` fails on a definition so new that it has no conditions at all.
    eventually(lambda: _is_established(kubectl), what="the CustomResourceDefinition is served")
    return kubectl


def _is_established(kubectl: Kubectl) -> bool:
    conditions = kubectl.get("crd", f"{PLURAL}.{GROUP}").get("status", {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


@pytest.fixture(scope="session")
def operator_kubeconfig(cluster: Kubectl, control_plane: ControlPlane) -> Path:
    """A kubeconfig with the rights that the chart gives the controller and no others."""
    objects = helm().render(CHART, {}, name="test", namespace="default")
    kinds = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    rbac = [o for o in objects if o["kind"] in kinds and not is_hook(o)]
    (account,) = [o for o in rbac if o["kind"] == "ServiceAccount"]
    for manifest in rbac:
        cluster.apply(manifest, "default")
    return account_kubeconfig(cluster, control_plane, account["metadata"]["name"], "default")


def account_kubeconfig(cluster: Kubectl, control_plane: ControlPlane, account: str, namespace: str) -> Path:
    """A kubeconfig with the rights of a service account."""
    token = cluster.run("create", "token", account, "-n", namespace, "--duration=2h").strip()
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    path = control_plane.directory / f"{namespace}-{account}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def namespace(cluster: Kubectl) -> Iterator[str]:
    """A namespace of the test's own."""
    with cluster.temporary_namespace() as name:
        yield name


@pytest.fixture
def start_controller(operator_kubeconfig: Path, tmp_path: Path) -> Iterator[StartController]:
    """Starts controllers that serve given namespaces; those left over end with the test."""
    with ExitStack() as stack:

        def start(*namespaces: str, **environment: str) -> ControllerProcess:
            process = ControllerProcess(operator_kubeconfig, tmp_path / "controller.log", namespaces, environment)
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
