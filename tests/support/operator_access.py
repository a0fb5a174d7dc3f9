"""Rights on a control plane: what a service account may do, and no more."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from policy.crd import DEFINITIONS, crd
from tests.support.chart import is_hook
from tests.support.controlplane import ControlPlane
from tests.support.kube import Kubectl, eventually

RBAC_KINDS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")


def serve_policies(kubectl: Kubectl) -> None:
    """Have the API server serve our kinds."""
    for definition in DEFINITIONS:
        manifest = crd(definition)
        kubectl.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(manifest))
        # `kubectl wait` fails on a definition so new that it has no conditions at all.
        eventually(partial(_is_established, kubectl, manifest["metadata"]["name"]), what="the definition is served")
    for definition in DEFINITIONS:
        eventually(partial(_is_described, kubectl, definition.plural), what="kubectl can explain the kind")


def grant_operator_access(
    kubectl: Kubectl, plane: ControlPlane, installation: Iterable[Mapping[str, Any]], namespace: str
) -> Path:
    """A kubeconfig with the rights that an installation of the chart gives the controller.

    Args:
        kubectl: with all rights.
        plane: the control plane.
        installation: all objects of the chart.
        namespace: the release's namespace.
    """
    rbac = [o for o in installation if o["kind"] in RBAC_KINDS and not is_hook(o)]
    (account,) = [o for o in rbac if o["kind"] == "ServiceAccount"]
    for manifest in rbac:
        kubectl.apply(manifest, manifest["metadata"].get("namespace", namespace))
    return account_kubeconfig(kubectl, plane, account["metadata"]["name"], namespace)


def account_kubeconfig(kubectl: Kubectl, plane: ControlPlane, account: str, namespace: str) -> Path:
    """A kubeconfig with the rights of a service account."""
    token = kubectl.run("create", "token", account, "-n", namespace, "--duration=2h").strip()
    config = yaml.safe_load(plane.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    path = plane.directory / f"{namespace}-{account}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def _is_described(kubectl: Kubectl, plural: str) -> bool:
    try:
        return bool(kubectl.run("explain", plural))
    except subprocess.CalledProcessError:
        return False


def _is_established(kubectl: Kubectl, name: str) -> bool:
    conditions = kubectl.get("crd", name).get("status", {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
