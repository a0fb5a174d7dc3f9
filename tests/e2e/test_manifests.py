"""The operator without Helm: as docs/how-to/install.md says, with kubectl alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from tests.e2e.application import Application
from tests.e2e.operator_release import CRDS
from tests.support.chart import ROOT
from tests.support.kube import Kubectl

pytestmark = pytest.mark.timeout(400)

MANIFESTS = ROOT / "manifests"
NAMESPACE: str = yaml.safe_load((MANIFESTS / "namespace.yaml").read_text())["metadata"]["name"]


@pytest.fixture
def applied(kubectl: Kubectl) -> Iterator[None]:
    """The manifests, applied to a cluster that has nothing of them."""
    if there := CRDS & kubectl.names("customresourcedefinitions"):
        pytest.skip(f"the cluster has {', '.join(sorted(there))}: removing the manifests would remove its policies")
    try:
        kubectl.run("apply", "--server-side", "-k", str(MANIFESTS))
        yield
    finally:
        kubectl.run("delete", "-k", str(MANIFESTS), "--ignore-not-found", "--wait=true", "--timeout=120s")


def test_r1_4_the_plain_manifests_serve_policies(applied: None, application: Application) -> None:
    kubectl = application.kubectl
    kubectl.run("rollout", "status", "deployment", "-n", NAMESPACE, "--timeout=120s")
    seeded = application.seed()
    application.apply_policy()
    application.wait_for("Ready")
    assert application.request_run()["outcome"] == "Succeeded"
    assert application.database_ids() == {session.id for session in seeded.live}
