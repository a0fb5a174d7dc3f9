"""Lints the chart and checks what it renders against the schemas of Kubernetes: `make lint-chart`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate

from tests.support.helm import helm
from tools import chart_docs

KUBERNETES_VERSIONS = ("1.31", "1.33", "1.36")

# The kinds of the Prometheus operator are not Kubernetes' own; promtool and the unit tests look at them.
FOREIGN_GROUPS = ("monitoring.coreos.com/",)

EVERYTHING: dict[str, Any] = {
    "fullnameOverride": "sessions",
    "commonLabels": {"example.com/team": "platform"},
    "commonAnnotations": {"example.com/contact": "platform@example.com"},
    "controller": {
        "replicas": 3,
        "image": {"registry": "registry.example.com", "digest": "sha256:" + "0" * 64},
        "imagePullSecrets": ["pull"],
        "logLevel": "debug",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
        ],
        "priorityClassName": "system-cluster-critical",
        "annotations": {"example.com/owner": "platform"},
        "podAnnotations": {"example.com/owner": "platform"},
        "podLabels": {"team": "platform"},
        "revisionHistoryLimit": 0,
        "extraEnv": [
            {"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"},
            {"name": "NO_PROXY", "value": "$(KUBERNETES_SERVICE_HOST)"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "otlp", "key": "token"}}},
        ],
        "extraVolumes": [{"name": "authorities", "configMap": {"name": "authorities"}}],
        "extraVolumeMounts": [{"name": "authorities", "mountPath": "/etc/authorities", "readOnly": True}],
    },
    "job": {
        "image": {"tag": "1"},
        "imagePullSecrets": ["a", "b"],
        "priorityClassName": "low",
        "serviceAccountName": "cleaner",
        "podLabels": {"team": "platform"},
        "podAnnotations": {"sidecar.istio.io/inject": "false"},
        "extraEnv": {"HTTPS_PROXY": "http://proxy.example.com:3128"},
        "limits": {
            "maxCpu": "500m",
            "maxMemory": "512Mi",
            "maxTimeoutSeconds": 3600,
            "maxRetries": 0,
            "maxParallelism": 4,
        },
        "allow": {"nodeSelector": False, "tolerations": False, "logVolumes": False, "telemetryEndpoint": True},
    },
    "telemetry": {
        "otlp": {"endpoint": "https://collector.example.com", "headersSecret": {"name": "otlp", "key": "token"}},
        "samplingPercent": 7,
        "resourceAttributes": {"k8s.cluster.name": "north 1", "deployment.environment.name": "a=b,c+d%"},
        "jobs": {"metrics": False},
    },
    "serviceAccount": {"name": "sessions", "annotations": {"example.com/role": "none"}},
    "networkPolicy": {
        "enabled": True,
        "apiServer": {"cidrs": ["10.0.0.1/32", "fd00::1/128"]},
        "dns": {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]},
        "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 4318, "protocol": "TCP"}]}],
        "jobs": {
            "storesTo": [{"podSelector": {"matchLabels": {"app": "postgres"}}}],
            "extraEgress": [{"ports": [{"port": 443}]}],
        },
    },
    "monitoring": {
        "podMonitor": {"enabled": True, "interval": "30s", "scrapeTimeout": "10s", "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Operators"}},
    },
    "extraObjects": [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": '{{ include "operator.fullname" . }}-notes', "namespace": "operators"},
            "data": {"release": "{{ .Release.Name }}"},
        }
    ],
}

VALUE_SETS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "two namespaces": {"watchNamespaces": ["web", "shop"]},
    "everything set": EVERYTHING,
    "everything set, for two namespaces": {**EVERYTHING, "watchNamespaces": ["web", "shop"]},
    "a ServiceMonitor": {"monitoring": {"serviceMonitor": {"enabled": True}}},
    "one replica": {"controller": {"replicas": 1, "topologySpreadConstraints": []}},
    "names that YAML takes for numbers": {"fullnameOverride": "1234", "watchNamespaces": ["5678", "1e3"]},
    "nothing created": {
        "crds": {"enabled": False},
        "rbac": {"create": False, "aggregateToDefaultRoles": False},
        "serviceAccount": {"create": False},
        "controller": {"podDisruptionBudget": {"enabled": False}},
        "helmTest": {"enabled": False},
    },
}


def main(chart: Path) -> int:
    """Check the chart with every set of values; the exit code says whether it is sound."""
    program, failures = helm(), 0
    for title, values in VALUE_SETS.items():
        objects = program.render(chart, values, name="release", namespace="operators")
        findings = [*program.lint(chart, values), *schema_findings(objects)]
        print(f"chart with {title}: {len(objects)} objects, {len(findings)} findings")
        for finding in findings:
            print(f"  {finding}", file=sys.stderr)
        failures += len(findings)
    for path, text in chart_docs.documents(chart).items():
        if path.read_text() != text:
            print(f"{path} is not what values.schema.json says: make chart-docs", file=sys.stderr)
            failures += 1
    return 1 if failures else 0


def schema_findings(objects: Iterable[dict[str, Any]]) -> list[str]:
    """What the schemas of the supported Kubernetes versions say against these objects."""
    own = (o for o in objects if not o["apiVersion"].startswith(FOREIGN_GROUPS))
    return [finding for manifest in own for finding in _findings(json.dumps(manifest, sort_keys=True))]


# Most objects are the same for most values, and each check reads a schema of megabytes.
@cache
def _findings(text: str) -> list[str]:
    manifest, findings = json.loads(text), []
    for version in KUBERNETES_VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            name = f"{manifest['kind']}/{manifest['metadata']['name']}"
            findings.append(f"{name}, Kubernetes {version}: {error.message} at {list(error.path)}")
    return findings


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
