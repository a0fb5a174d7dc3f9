"""Owner references, by which Kubernetes' garbage collector removes what was created for an object."""

from __future__ import annotations

from typing import Any


def controller_reference(api_version: str, kind: str, name: str, uid: str) -> dict[str, Any]:
    """A reference to the controlling owner. It does not keep the owner from being deleted first."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
