"""Writes the plain manifests for those without Helm from the chart: `make manifests`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from tests.support.helm import helm

NAMESPACE = "session-policy-operator"
HEADER = "# Written from the Helm chart by `make manifests`; change that, or patch this in an overlay.\n"

# What only Helm knows of.
_HELM_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by")


def operator_manifests(chart: Path) -> str:
    """The chart with its defaults, without the resource definitions (they are in crds/) and Helm's own marks."""
    objects = helm().render(chart, {}, name=NAMESPACE, namespace=NAMESPACE)
    wanted = [
        without_helm(manifest)
        for manifest in objects
        if manifest["kind"] != "CustomResourceDefinition" and not _is_hook(manifest)
    ]
    wanted.sort(key=lambda manifest: (manifest["kind"], manifest["metadata"]["name"]))
    return HEADER + yaml.safe_dump_all(wanted, sort_keys=False, explicit_start=True, width=118)


def without_helm(manifest: dict[str, Any]) -> dict[str, Any]:
    """The object without the labels that Helm's releases are known by."""
    metadata = manifest["metadata"]
    labels = {key: value for key, value in metadata["labels"].items() if key not in _HELM_LABELS}
    cleaned = {**manifest, "metadata": {**metadata, "labels": labels}}
    template = manifest.get("spec", {}).get("template")
    return (
        cleaned if template is None else {**cleaned, "spec": {**manifest["spec"], "template": without_helm(template)}}
    )


def crds_kustomization(crds: Path) -> str:
    """A kustomization of all resource definitions, so that the manifests need no copy of them."""
    names = sorted(path.name for path in crds.glob("*.yaml") if path.name != "kustomization.yaml")
    document = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": names}
    return "# Written by `make manifests`.\n" + yaml.safe_dump(document, sort_keys=False)


def documents(root: Path) -> dict[Path, str]:
    """What each written file must hold."""
    return {
        root / "manifests" / "operator.yaml": operator_manifests(root / "charts" / "session-policy-operator"),
        root / "crds" / "kustomization.yaml": crds_kustomization(root / "crds"),
    }


def main(root: Path) -> None:
    """Write them."""
    for path, text in documents(root).items():
        path.write_text(text)


def _is_hook(manifest: dict[str, Any]) -> bool:
    return "helm.sh/hook" in manifest["metadata"].get("annotations", {})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
