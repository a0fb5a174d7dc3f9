"""What Helm tells after an installation: the next command, and what cannot work with these values."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from policy.manifest import parse_policy
from tests.support.chart import CHART, NAME, NAMESPACE
from tests.support.helm import helm


def notes(values: dict[str, Any] | None = None) -> str:
    return helm().notes(CHART, values or {}, name="release", namespace=NAMESPACE)


def test_the_next_commands_are_told() -> None:
    told = notes()
    for command in (
        f"kubectl rollout status deployment/{NAME} -n {NAMESPACE}",
        f"helm test release -n {NAMESPACE}",
        "kubectl apply -n default -f -",
        "kubectl get spol -A -w",
        "sessionpolicies.sessionpolicy.dev",
    ):
        assert command in told
    assert "all namespaces" in told
    assert "WARNING" not in told


def test_the_policy_to_apply_is_valid_and_deletes_nothing() -> None:
    _, _, rest = notes().partition("<<EOF\n")
    document = yaml.safe_load(rest.partition("EOF")[0])
    document["metadata"]["namespace"] = "default"
    assert parse_policy(document).spec.dry_run


def test_a_namespace_that_is_served_is_proposed() -> None:
    told = notes({"watchNamespaces": ["web", "shop"]})
    assert "kubectl apply -n web" in told
    assert "web, shop" in told
    assert "all namespaces" not in told


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        ({"crds": {"enabled": False}}, "crds.enabled is false"),
        ({"rbac": {"create": False}}, "rbac.create is false"),
        ({"serviceAccount": {"create": False}}, 'service account "default"'),
        ({"controller": {"replicas": 1}}, "controller.replicas is 1"),
        ({"networkPolicy": {"enabled": True}}, "has no effect without watchNamespaces"),
        ({"monitoring": {"prometheusRule": {"enabled": True}}}, "scrapes the controller"),
    ],
    ids=str,
)
def test_what_cannot_work_is_told(values: dict[str, Any], warning: str) -> None:
    (found,) = [part for part in notes(values).split("\n\n") if part.startswith("WARNING")]
    assert warning in " ".join(found.split())


def test_commands_that_cannot_work_are_not_told() -> None:
    assert "helm test" not in notes({"helmTest": {"enabled": False}})
    assert "helm test" not in notes({"rbac": {"create": False}})
    assert "delete crd" not in notes({"crds": {"enabled": False}})
    told = notes({"networkPolicy": {"enabled": True}, "watchNamespaces": ["web"]})
    assert "WARNING" not in told
