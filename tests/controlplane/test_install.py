"""What a user applies first: the chart and the examples, as a real API server judges them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.helm import helm
from tests.support.kube import Kubectl

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "session-policy-operator"


@pytest.fixture
def kubectl(cluster: Kubectl) -> Kubectl:
    return cluster


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    with kubectl.temporary_namespace() as name:
        yield name


def test_r1_4_every_object_of_the_chart_is_accepted(kubectl: Kubectl, namespace: str) -> None:
    for values in ({}, {"watchNamespaces": [namespace]}):
        objects = helm().render(CHART, values, name="release", namespace=namespace)
        objects = [manifest for manifest in objects if manifest["kind"] != "CustomResourceDefinition"]
        bundle = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        kubectl.run("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=bundle)


def test_r1_4_the_controllers_pod_is_admitted_under_pod_security_restricted(kubectl: Kubectl, namespace: str) -> None:
    kubectl.run("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    objects = helm().render(CHART, {}, name="release", namespace=namespace)
    (deployment,) = [manifest for manifest in objects if manifest["kind"] == "Deployment"]
    kubectl.run("create", "serviceaccount", "release-session-policy-operator", "-n", namespace)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "controller"},
        "spec": deployment["spec"]["template"]["spec"],
    }
    kubectl.run("create", "--dry-run=server", "-n", namespace, "-f", "-", stdin=json.dumps(pod))


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda path: path.name)
def test_r1_4_every_example_can_be_applied(kubectl: Kubectl, namespace: str, path: Path) -> None:
    for manifest in yaml.safe_load_all(path.read_text()):
        kubectl.apply(manifest, namespace)


def test_r1_4_explain_describes_the_stores(kubectl: Kubectl) -> None:
    told = kubectl.run("explain", "sessionpolicies.spec.stores", "--recursive")
    for field in ("database", "redis", "urlFrom", "userIndex"):
        assert field in told
