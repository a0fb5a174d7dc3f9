"""The chart as tests read it: rendered objects by kind, and every pod that it makes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.helm import helm

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "session-policy-operator"

NAME = "release-session-policy-operator"
NAMESPACE = "operators"

Manifest = dict[str, Any]


def render(values: dict[str, Any] | None = None) -> list[Manifest]:
    """All objects of the chart, installed as "release" into the namespace "operators"."""
    found: list[Manifest] = json.loads(_rendered(json.dumps(values or {})))
    return found


@cache
def _rendered(values: str) -> str:
    # As text, so that a test may change what it is given.
    return json.dumps(helm().render(CHART, json.loads(values), name="release", namespace=NAMESPACE))


def of_kind(objects: list[Manifest], kind: str, *, tests: bool = False) -> list[Manifest]:
    """The objects of a kind that are installed, or those that `helm test` makes."""
    return [manifest for manifest in objects if manifest["kind"] == kind and is_hook(manifest) == tests]


def is_hook(manifest: Mapping[str, Any]) -> bool:
    """Whether Helm makes the object at an event instead of installing it."""
    return "helm.sh/hook" in manifest["metadata"].get("annotations", {})


def deployment(values: dict[str, Any] | None = None) -> Manifest:
    """The controller's Deployment."""
    (found,) = of_kind(render(values), "Deployment")
    return found


def pod_spec(values: dict[str, Any] | None = None) -> Manifest:
    """The spec of the controller's pods."""
    spec: Manifest = deployment(values)["spec"]["template"]["spec"]
    return spec


def container(values: dict[str, Any] | None = None) -> Manifest:
    """The controller's container."""
    (found,) = pod_spec(values)["containers"]
    result: Manifest = found
    return result


def environment(values: dict[str, Any] | None = None) -> dict[str, str]:
    """The controller's environment variables that have a value of their own."""
    return {entry["name"]: entry["value"] for entry in container(values)["env"] if "value" in entry}


def granted(role: Manifest) -> dict[tuple[str, str], set[str]]:
    """What a role allows: verbs by API group and resource."""
    allowed: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                allowed.setdefault((group, resource), set()).update(rule["verbs"])
    return allowed
