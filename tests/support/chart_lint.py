"""Lints the chart and checks what it renders against the schemas of Kubernetes: `make lint-chart`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import kubernetes_validate

from tests.support.helm import helm

KUBERNETES_VERSIONS = ("1.29", "1.32", "1.36")

VALUE_SETS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "two namespaces": {"watchNamespaces": ["web", "shop"]},
    "everything set": {
        "fullnameOverride": "sessions",
        "controller": {
            "image": {"registry": "registry.example.com", "digest": "sha256:" + "0" * 64},
            "imagePullSecrets": ["pull"],
            "logLevel": "debug",
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "dedicated", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
            "priorityClassName": "system-cluster-critical",
            "podAnnotations": {"example.com/owner": "platform"},
            "podLabels": {"team": "platform"},
        },
        "job": {"image": {"tag": "1"}, "imagePullSecrets": ["a", "b"], "priorityClassName": "low"},
        "serviceAccount": {"name": "sessions", "annotations": {"example.com/role": "none"}},
    },
    "nothing created": {
        "crds": {"enabled": False},
        "rbac": {"create": False, "aggregateToDefaultRoles": False},
        "serviceAccount": {"create": False},
    },
}


def main(chart: Path) -> int:
    """Check the chart with every set of values; the exit code says whether it is sound."""
    program, failures = helm(), 0
    for title, values in VALUE_SETS.items():
        findings = program.lint(chart, values)
        objects = program.render(chart, values, name="release", namespace="operators")
        for manifest in objects:
            for version in KUBERNETES_VERSIONS:
                try:
                    kubernetes_validate.validate(manifest, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    name = f"{manifest['kind']}/{manifest['metadata']['name']}"
                    findings.append(f"{name}, Kubernetes {version}: {error.message} at {list(error.path)}")
        print(f"chart with {title}: {len(objects)} objects, {len(findings)} findings")
        for finding in findings:
            print(f"  {finding}", file=sys.stderr)
        failures += len(findings)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
