"""The kinds of the Prometheus operator, as far as an API server has to know them to serve them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.kube import Kubectl

KINDS = ("PodMonitor", "ServiceMonitor", "PrometheusRule")

_GROUP = "monitoring.coreos.com"


def crd_name(kind: str) -> str:
    """Name of a kind's resource definition."""
    return f"{kind.lower()}s.{_GROUP}"


def stub_definition(kind: str) -> dict[str, Any]:
    """A resource definition that takes anything."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": crd_name(kind)},
        "spec": {
            "group": _GROUP,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": f"{kind.lower()}s"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


@contextmanager
def served(kubectl: Kubectl) -> Iterator[None]:
    """Have the cluster serve these kinds for a while; those that it has already stay as they are."""
    missing = [kind for kind in KINDS if not kubectl.exists("crd", crd_name(kind))]
    try:
        for kind in missing:
            kubectl.apply(stub_definition(kind))
            kubectl.run("wait", "--for=condition=Established", "crd", crd_name(kind), "--timeout=240s")
        yield
    finally:
        for kind in missing:
            kubectl.run("delete", "crd", crd_name(kind), "--ignore-not-found", "--timeout=240s")
