"""Values that turn everything on, such that they work on a real cluster, and what must be there before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.e2e.application import Application
from tests.e2e.operator_release import NAMESPACE, merged
from tests.support.kube import Kubectl
from tools.chart_lint import EVERYTHING

NAME = EVERYTHING["fullnameOverride"]
PRIORITY_CLASS = "e2e-session-policy"
ACCOUNT = "cleaner"
PULL_SECRET = "pull"  # the name of a Kubernetes Secret


def values(application: Application, version: str) -> dict[str, Any]:
    """All switches on, for the application's namespace alone.

    What the chart's checks turn on is on here as well. Other than there, what is named must exist. No digests: an image
    that was loaded into a node instead of pulled has none.
    """
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": application.store.namespace}}}
    return merged(
        EVERYTHING,
        {
            "watchNamespaces": [application.namespace],
            "rbac": {"aggregateToDefaultRoles": False},
            "controller": {
                "image": {"registry": "", "digest": ""},
                "imagePullSecrets": [PULL_SECRET],
                "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
                ],
                "priorityClassName": PRIORITY_CLASS,
            },
            "job": {
                "image": {"tag": version},
                "imagePullSecrets": [PULL_SECRET],
                "priorityClassName": PRIORITY_CLASS,
                "serviceAccountName": ACCOUNT,
            },
            # The API server's addresses differ from cluster to cluster.
            "networkPolicy": {"apiServer": {"cidrs": []}, "jobs": {"storesTo": [here]}},
            "extraObjects": [
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": f"{NAME}-notes", "namespace": "{{ .Release.Namespace }}"},
                    "data": {"release": "{{ .Release.Name }}"},
                }
            ],
        },
    )


@contextmanager
def prerequisites(kubectl: Kubectl, application: Application) -> Iterator[None]:
    """What the values name; a cluster's administrator would make it."""
    pull = {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": '{"auths":{}}'}}
    for manifest, namespace in (
        (_named("Secret", PULL_SECRET) | pull, NAMESPACE),
        (_named("Secret", "otlp") | {"stringData": {"token": "none"}}, NAMESPACE),
        (_named("ConfigMap", "authorities") | {"data": {"ca.crt": "none"}}, NAMESPACE),
        (_named("Secret", PULL_SECRET) | pull, application.namespace),
        (_named("ServiceAccount", ACCOUNT), application.namespace),
    ):
        kubectl.apply(manifest, namespace)
    try:
        kubectl.apply(_named("PriorityClass", PRIORITY_CLASS, "scheduling.k8s.io/v1") | {"value": 1000})
        yield
    finally:
        kubectl.run("delete", "priorityclass", PRIORITY_CLASS, "--ignore-not-found")


def _named(kind: str, name: str, api_version: str = "v1") -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}}
