"""The plain manifests are the chart's, without Helm."""

from __future__ import annotations

from typing import Any

import yaml

from tests.support.chart import CHART, ROOT, granted
from tests.support.helm import helm
from tools import manifests
from tools.chart_lint import schema_findings

OPERATOR: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "manifests" / "operator.yaml").read_text()))


def test_the_committed_manifests_are_the_charts() -> None:
    for path, text in manifests.documents(ROOT).items():
        assert path.read_text() == text, f"{path.name}: run `make manifests`"


def test_everything_the_chart_installs_is_there() -> None:
    rendered = helm().render(CHART, {}, name=manifests.NAMESPACE, namespace=manifests.NAMESPACE)
    installed = {
        (m["kind"], m["metadata"]["name"])
        for m in rendered
        if "helm.sh/hook" not in m["metadata"].get("annotations", {}) and m["kind"] != "CustomResourceDefinition"
    }
    assert {(m["kind"], m["metadata"]["name"]) for m in OPERATOR} == installed
    assert schema_findings(OPERATOR) == []


def test_nothing_claims_to_be_helms() -> None:
    assert "helm" not in (ROOT / "manifests" / "operator.yaml").read_text().lower().replace(
        manifests.HEADER.lower(), ""
    )


def test_the_namespace_takes_restricted_pods_only() -> None:
    namespace = yaml.safe_load((ROOT / "manifests" / "namespace.yaml").read_text())
    assert namespace["metadata"]["name"] == manifests.NAMESPACE
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_no_secret_can_be_read() -> None:
    roles = [m for m in OPERATOR if m["kind"] in ("Role", "ClusterRole")]
    assert roles
    assert not [role for role in roles if ("", "secrets") in granted(role)]
