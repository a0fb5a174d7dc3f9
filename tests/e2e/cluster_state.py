"""What must be on the cluster after the tests as it was before."""

from __future__ import annotations

from tests.support.kube import Kubectl

# What an operator may bring that is in no namespace, and the namespaces with all that is in them.
_KINDS = (
    "namespaces",
    "customresourcedefinitions",
    "apiservices",
    "clusterroles",
    "clusterrolebindings",
    "priorityclasses",
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
)


def cluster_scoped_objects(kubectl: Kubectl) -> set[str]:
    """The cluster's own objects, as kind/name."""
    return set(kubectl.run("get", ",".join(_KINDS), "-o", "name").split())
