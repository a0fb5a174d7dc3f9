"""The CustomResourceDefinitions that the chart brings."""

from __future__ import annotations

import yaml

from tests.support.chart import CHART, ROOT, of_kind, render

GENERATED = {path.name: path for path in (ROOT / "crds").glob("*.yaml") if path.name != "kustomization.yaml"}


def test_r1_4_the_charts_resource_definitions_are_the_generated_ones() -> None:
    copies = {path.name: path.read_text() for path in (CHART / "files" / "crds").iterdir()}
    assert copies == {name: path.read_text() for name, path in GENERATED.items()}, "run `make crds`"
    rendered = {crd["metadata"]["name"]: crd["spec"] for crd in of_kind(render(), "CustomResourceDefinition")}
    generated = [yaml.safe_load(path.read_text()) for path in GENERATED.values()]
    assert rendered == {crd["metadata"]["name"]: crd["spec"] for crd in generated}


def test_uninstalling_keeps_the_resource_definitions_and_so_the_policies() -> None:
    found = of_kind(render(), "CustomResourceDefinition")
    assert found
    assert all(crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for crd in found)
    assert not of_kind(render({"crds": {"enabled": False}}), "CustomResourceDefinition")
