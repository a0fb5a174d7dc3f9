"""The expressions that Flux users are given, evaluated by the CEL of a real API server on statuses of ours."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from policy.names import GROUP, PLURAL, VERSION
from tests.controlplane.policies import Policies, Policy
from tests.support.kube import Kubectl, eventually
from tests.unit.controller.health_cases import CASES

KUSTOMIZATION = Path(__file__).parents[2] / "examples" / "gitops" / "flux-kustomization.yaml"
NAME = "flux-health"


def judgement() -> str:
    """One expression in the order in which Flux asks. Flux calls the resource's fields by their names alone."""
    (health,) = yaml.safe_load(KUSTOMIZATION.read_text())["spec"]["healthCheckExprs"]
    said = {
        verdict: re.sub(r"(?<![\w.])(status|metadata)\.", r"object.\1.", health[verdict])
        for verdict in ("inProgress", "failed", "current")
    }
    return (
        f"({said['inProgress']}) ? 'judged InProgress' : ({said['failed']}) ? 'judged Failed' : "
        f"({said['current']}) ? 'judged Current' : 'judged nothing'"
    )


@pytest.fixture(scope="module")
def judged(cluster: Kubectl) -> Iterator[Policy]:
    """A policy whose every status is refused, with the verdict as the reason."""
    api = "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [GROUP], "apiVersions": [VERSION], "operations": ["UPDATE"], "resources": [f"{PLURAL}/status"]}
    with cluster.temporary_namespace("judged") as namespace:
        policy = Policies(cluster, namespace).named()
        policy.apply()
        tell = {"expression": "false", "messageExpression": judgement()}
        spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [tell]}
        binding = {
            "policyName": NAME,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
        }
        for kind, content in (("ValidatingAdmissionPolicy", spec), ("ValidatingAdmissionPolicyBinding", binding)):
            cluster.apply({"apiVersion": api, "kind": kind, "metadata": {"name": NAME}, "spec": content})
        eventually(lambda: "judged" in verdict(policy, "well"), what="the expressions are in force")
        yield policy
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            cluster.run("delete", kind, NAME)


def test_the_health_check_is_a_patch_that_leaves_the_rest_of_argo_cd_s_configuration(
    cluster: Kubectl, namespace: str
) -> None:
    cluster.run("create", "configmap", "argocd-cm", "-n", namespace, "--from-literal=url=https://argo.example")
    patch = str(KUSTOMIZATION.with_name("argocd-health.yaml"))
    cluster.run("patch", "configmap", "argocd-cm", "-n", namespace, "--patch-file", patch)
    assert set(cluster.get("configmap", "argocd-cm", namespace)["data"]) == {
        "url",
        "resource.customizations.health.sessionpolicy.dev_SessionPolicy",
    }


def verdict(policy: Policy, case: str) -> str:
    found = CASES[case][0]
    assert found is not None
    generation = policy.get()["metadata"]["generation"]
    status = found.to_json_object()
    # The statuses are of generation 7, or of the one before it.
    status["observedGeneration"] = generation if status["observedGeneration"] == 7 else generation + 1
    where = ("spol", policy.name, "-n", policy.namespace, "--subresource=status", "--type=merge", "--dry-run=server")
    try:
        policy.kubectl.run("patch", *where, "-p", json.dumps({"status": status}))
    except subprocess.CalledProcessError as error:
        return str(error.stderr)
    return ""


@pytest.mark.representative(4)
@pytest.mark.parametrize("case", [case for case, (status, *_) in CASES.items() if status])
def test_flux_judges_rightly(judged: Policy, case: str) -> None:
    _, by_kstatus, by_argo_cd = CASES[case]
    failed = by_kstatus == "Failed" or (by_kstatus == "Current" and by_argo_cd == "Degraded")
    said = verdict(judged, case)
    if case == "not allowed for now":
        assert "judged nothing" in said, "it waits"
    else:
        assert f"judged {'Failed' if failed else by_kstatus}" in said
