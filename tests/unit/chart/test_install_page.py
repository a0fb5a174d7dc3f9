"""The examples of docs/how-to/install.md work."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.chart import ROOT, of_kind, render
from tests.support.code_blocks import yaml_examples
from tools.chart_lint import schema_findings

EXAMPLES = yaml_examples(ROOT / "docs" / "how-to" / "install.md")
VALUES = [example for example in EXAMPLES if "kind" not in example]


@pytest.mark.parametrize("values", VALUES, ids=",".join)
def test_the_values_are_accepted(values: dict[str, Any]) -> None:
    for part in ("controller", "job"):
        image = values.get(part, {}).get("image", {})
        if "digest" in image:
            image["digest"] = "sha256:" + "0" * 64
    assert schema_findings(render(values)) == []


def test_there_are_values() -> None:
    assert {key for values in VALUES for key in values} == {"controller", "job", "networkPolicy", "monitoring"}


def test_the_network_policy_for_a_namespace_is_the_charts() -> None:
    (example,) = [e for e in EXAMPLES if e.get("kind") == "NetworkPolicy"]
    objects = render({"networkPolicy": {"enabled": True}, "watchNamespaces": ["web"]})
    (rendered,) = [m for m in of_kind(objects, "NetworkPolicy") if m["metadata"]["namespace"] == "web"]
    assert example["spec"] == rendered["spec"]
