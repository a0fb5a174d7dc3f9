"""What `helm test` runs, as its own service account: it passes with a controller, and says what is wrong without."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from controller import selftest
from tests.controlplane.conftest import StartController
from tests.support.chart import CHART, ROOT, is_hook
from tests.support.controlplane import ControlPlane
from tests.support.helm import helm
from tests.support.kube import Kubectl
from tests.support.operator_access import account_kubeconfig
from tests.support.patience import PATIENCE_SECONDS

# Gives up sooner than the 90 seconds that a pod is given.
_IMPATIENT = "import sys; from controller.selftest import main; sys.exit(main(sys.argv[1], timeout_seconds=3))"

SelfTest = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_selftest(cluster: Kubectl, control_plane: ControlPlane, namespace: str) -> SelfTest:
    """Runs it in a namespace with the rights of the chart's test and no others."""
    objects = [o for o in helm().render(CHART, {}, name="test", namespace=namespace) if is_hook(o)]
    for manifest in objects:
        if manifest["kind"] != "Pod":
            cluster.apply(manifest)
    (account,) = [o["metadata"]["name"] for o in objects if o["kind"] == "ServiceAccount"]
    kubeconfig = account_kubeconfig(cluster, control_plane, account, namespace)

    def run(where: str, *, command: tuple[str, ...] = ("-m", selftest.__name__)) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ.get("PATH", os.defpath), "KUBECONFIG": str(kubeconfig)}
        return subprocess.run(
            [sys.executable, *command, where],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )

    return run


def test_r1_4_it_passes_where_a_controller_works_and_leaves_nothing(
    cluster: Kubectl, namespace: str, start_controller: StartController, run_selftest: SelfTest
) -> None:
    start_controller(namespace)
    result = run_selftest(namespace)
    assert result.returncode == 0, result.stderr
    assert namespace in result.stdout
    assert cluster.names("spol", namespace) == set()
    assert cluster.names("jobs", namespace) == set()


def test_it_fails_where_no_controller_works_and_leaves_nothing(
    cluster: Kubectl, namespace: str, run_selftest: SelfTest
) -> None:
    result = run_selftest(namespace, command=("-c", _IMPATIENT))
    assert result.returncode == 1
    assert "it has no status; see the controller's log" in result.stderr
    assert cluster.names("spol", namespace) == set()


def test_it_says_what_it_may_not(run_selftest: SelfTest) -> None:
    result = run_selftest("default")
    assert result.returncode == 1
    assert "the test policy could not be created in namespace default" in result.stderr
    assert "forbidden" in result.stderr


@pytest.mark.parametrize("observed", [0, 1])
def test_only_what_was_said_of_this_spec_counts(observed: int) -> None:
    condition = {"type": "Ready", "status": "True", "message": "fine", "observedGeneration": observed}
    policy = {"metadata": {"generation": 1}, "status": {"conditions": [condition]}}
    assert selftest.ready_message(policy) == ("fine" if observed == 1 else None)


def test_the_kubeconfig_is_needed(tmp_path: Path) -> None:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "KUBECONFIG": str(tmp_path / "none")}
    command = [sys.executable, "-m", selftest.__name__, "default"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "kubeconfig" in result.stderr
