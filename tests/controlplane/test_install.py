"""What a user applies first: the chart and the examples, as a real API server judges them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.code_blocks import yaml_examples
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
    for values in ({}, {"watchNamespaces": [namespace]}, {"networkPolicy": {"enabled": True}}):
        objects = helm().render(CHART, values, name="release", namespace=namespace)
        # A pod is refused until its service account is there.
        kept = [o for o in objects if o["kind"] not in ("CustomResourceDefinition", "Pod")]
        bundle = json.dumps({"apiVersion": "v1", "kind": "List", "items": kept})
        kubectl.run("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=bundle)


def test_r1_4_the_charts_pods_are_admitted_under_pod_security_restricted(kubectl: Kubectl, namespace: str) -> None:
    kubectl.run("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    objects = helm().render(CHART, {}, name="release", namespace=namespace)
    specs = [o["spec"]["template"]["spec"] for o in objects if o["kind"] == "Deployment"]
    specs += [o["spec"] for o in objects if o["kind"] == "Pod"]
    assert len(specs) == 2
    for spec in specs:
        kubectl.run("create", "serviceaccount", spec["serviceAccountName"], "-n", namespace)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
        kubectl.run("create", "--dry-run=server", "-n", namespace, "-f", "-", stdin=json.dumps(pod))


# What is in gitops are patches of other tools' objects.
EXAMPLES = sorted(path for path in (ROOT / "examples").rglob("*.yaml") if path.parent.name != "gitops")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_r1_4_every_example_can_be_applied(kubectl: Kubectl, namespace: str, path: Path) -> None:
    for manifest in yaml.safe_load_all(path.read_text()):
        kubectl.apply(manifest, namespace)


def test_r1_4_explain_describes_the_stores(kubectl: Kubectl) -> None:
    told = kubectl.run("explain", "sessionpolicies.spec.stores", "--recursive")
    for field in ("database", "redis", "urlFrom", "userIndex"):
        assert field in told


def test_r1_4_the_documented_overlay_sets_both_images(kubectl: Kubectl, tmp_path: Path) -> None:
    (overlay,) = [e for e in yaml_examples(ROOT / "docs" / "how-to" / "install.md") if e.get("kind") == "Kustomization"]
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    shutil.copytree(ROOT / "crds", tmp_path / "crds")
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    built = list(yaml.safe_load_all(kubectl.run("kustomize", str(tmp_path))))
    (deployment,) = [manifest for manifest in built if manifest["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    told = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert container["image"].startswith("registry.example.com/platform/session-policy-controller:")
    assert told["SESSION_POLICY_JOB_IMAGE"].startswith("registry.example.com/platform/session-policy-job:")
    assert told["SESSION_POLICY_HTTP_PORT"] == "8080", "the other settings stay"
