"""The label value that ties an object to the policy or revocation that it was made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from controller.api.kube import CRON_JOBS, POLICIES, REVOCATIONS, Kind
from policy.names import KIND, POLICY_LABEL, REVOCATION_LABEL, cron_job_name

Body = Mapping[str, Any]

# No label value holds a slash: a policy cannot be named like a revocation.
_REVOCATION_PREFIX: Final = "revocation/"


def owner_label(kind: Kind, body: Body) -> str:
    """The label of the policy or revocation that an object is, or was made for; empty if there is none."""
    if kind is POLICIES:
        return cron_job_name(body["metadata"]["name"])
    if kind is REVOCATIONS:
        return f"{_REVOCATION_PREFIX}{body['metadata']['uid']}"
    if kind is CRON_JOBS and (policy := _controlling_policy(body)):
        return cron_job_name(policy)  # its label may have been changed by hand
    labels = body["metadata"].get("labels") or {}
    if uid := labels.get(REVOCATION_LABEL):
        return f"{_REVOCATION_PREFIX}{uid}"
    label: str = labels.get(POLICY_LABEL, "")
    return label


def is_of_revocation(label: str) -> bool:
    """Whether an owner label is that of a revocation."""
    return label.startswith(_REVOCATION_PREFIX)


def _controlling_policy(child: Body) -> str:
    owners = child["metadata"].get("ownerReferences") or []
    return next((owner["name"] for owner in owners if owner.get("controller") and owner.get("kind") == KIND), "")
