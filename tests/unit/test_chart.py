"""The Helm chart: what it grants, what it refuses, what the controller is told."""

from __future__ import annotations

import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.helm import HelmFailed, helm

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "session-policy-operator"

ALLOWED = {
    ("sessionpolicy.dev", "sessionpolicies"): {"get", "list", "watch"},
    ("sessionpolicy.dev", "sessionpolicies/status"): {"patch"},
    ("batch", "cronjobs"): {"get", "list", "watch", "create", "patch"},
    ("batch", "jobs"): {"list", "watch", "create"},
    ("", "pods"): {"list", "watch"},
    ("", "events"): {"create"},
}


def render(values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    return helm().render(CHART, values or {}, name="release", namespace="operators")


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [manifest for manifest in objects if manifest["kind"] == kind]


def container(values: dict[str, Any] | None = None) -> dict[str, Any]:
    (deployment,) = of_kind(render(values), "Deployment")
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    result: dict[str, Any] = found
    return result


def environment(values: dict[str, Any] | None = None) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container(values)["env"] if "value" in entry}


def granted(role: dict[str, Any]) -> dict[tuple[str, str], set[str]]:
    return {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def test_r1_4_the_charts_resource_definition_is_the_generated_one() -> None:
    generated = (ROOT / "crds" / "sessionpolicies.yaml").read_text()
    assert (CHART / "files" / "sessionpolicies.yaml").read_text() == generated
    (crd,) = of_kind(render(), "CustomResourceDefinition")
    assert crd["spec"] == yaml.safe_load(generated)["spec"]


def test_uninstalling_keeps_the_resource_definition_and_so_the_policies() -> None:
    (crd,) = of_kind(render(), "CustomResourceDefinition")
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not of_kind(render({"crds": {"enabled": False}}), "CustomResourceDefinition")


def test_chart_and_distribution_have_the_same_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == version
    assert container()["image"] == f"session-policy-controller:{version}"


def test_the_controller_may_do_exactly_what_it_does_and_read_no_secret() -> None:
    (role,) = [r for r in of_kind(render(), "ClusterRole") if r["metadata"]["name"].endswith("operator")]
    assert granted(role) == ALLOWED
    (binding,) = of_kind(render(), "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    (account,) = of_kind(render(), "ServiceAccount")
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": "operators"}
    ]


def test_with_namespaces_given_the_controller_has_no_right_on_the_cluster() -> None:
    objects = render({"watchNamespaces": ["web", "shop"], "rbac": {"aggregateToDefaultRoles": False}})
    assert not of_kind(objects, "ClusterRole")
    assert not of_kind(objects, "ClusterRoleBinding")
    roles = of_kind(objects, "Role")
    assert {role["metadata"]["namespace"] for role in roles} == {"web", "shop"}
    assert all(granted(role) == ALLOWED for role in roles)
    assert environment({"watchNamespaces": ["web", "shop"]})["SESSION_POLICY_WATCH_NAMESPACES"] == "web,shop"


def test_readers_cannot_write_policies_and_nobody_writes_status_by_role() -> None:
    roles = {role["metadata"]["name"].rsplit("-", 1)[1]: role for role in of_kind(render(), "ClusterRole")}
    assert set().union(*granted(roles["view"]).values()) == {"get", "list", "watch"}
    assert set(granted(roles["edit"])) == {("sessionpolicy.dev", "sessionpolicies")}
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in roles["edit"]["metadata"]["labels"]


def test_the_pod_meets_pod_security_restricted() -> None:
    (deployment,) = of_kind(render(), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container()["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert "volumes" not in pod


def test_two_controllers_never_run_at_once() -> None:
    (deployment,) = of_kind(render(), "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_probes_ask_the_port_the_controller_is_told() -> None:
    (port,) = container()["ports"]
    assert environment()["SESSION_POLICY_HEALTH_PORT"] == str(port["containerPort"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container()[probe]["httpGet"] == {"path": "/healthz", "port": port["name"]}


def test_the_controller_is_told_how_to_run_jobs() -> None:
    digest = "sha256:" + "a" * 64
    told = environment(
        {
            "job": {
                "image": {"registry": "registry.example.com/", "tag": "ignored", "digest": digest},
                "imagePullSecrets": ["one", "two"],
                "priorityClassName": "low",
            }
        }
    )
    assert told["SESSION_POLICY_JOB_IMAGE"] == f"registry.example.com/session-policy-job@{digest}"
    assert told["SESSION_POLICY_JOB_IMAGE_PULL_POLICY"] == "IfNotPresent"
    assert told["SESSION_POLICY_JOB_IMAGE_PULL_SECRETS"] == "one,two"
    assert told["SESSION_POLICY_JOB_PRIORITY_CLASS"] == "low"
    assert environment()["SESSION_POLICY_WATCH_NAMESPACES"] == ""
    assert environment({"controller": {"logLevel": "debug"}})["SESSION_POLICY_LOG_LEVEL"] == "DEBUG"


@pytest.mark.parametrize(
    "values",
    [
        {"watchNamespace": "web"},
        {"controller": {"replicas": 2}},
        {"controller": {"logLevel": "loud"}},
        {"controller": {"resyncSeconds": 0}},
        {"job": {"image": {"pullPolicy": "Sometimes"}}},
        {"job": {"image": {"digest": "sha256:short"}}},
        {"watchNamespaces": ["Not A Namespace"]},
    ],
    ids=str,
)
def test_misspelt_or_senseless_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(HelmFailed):
        render(values)


def test_every_value_is_described() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    structure = {"controller:", "job:", "image:", "crds:", "rbac:", "serviceAccount:", "requests:", "limits:"}
    for before, line in pairwise(lines):
        word = line.strip()
        is_value = bool(word) and not word.startswith(("#", "cpu:", "memory:")) and word not in structure
        assert not is_value or before.strip().startswith("#"), word
