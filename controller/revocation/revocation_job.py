"""The Job of a SessionRevocation: the policy's Pod, with the user or session to revoke in its environment."""

from __future__ import annotations

import json
from typing import Any, Final

from controller.manifests.cronjob import build_cron_job, job_deadline_seconds
from controller.manifests.owner_reference import controller_reference
from controller.settings.controller_settings import Settings
from policy.manifest import SessionPolicy, SessionRevocation
from policy.names import (
    ALERT_OPERATIONS_URLS_ENV,
    ALERT_SECURITY_URLS_ENV,
    API_VERSION,
    CONTAINER_NAME,
    JOB_UID_ENV,
    REVOCATION_ENV,
    REVOCATION_KIND,
    REVOCATION_LABEL,
)
from policy.opentelemetry_env import OPERATORS_VARIABLES, RESOURCE_FIELDS
from policy.revocation import RevocationTarget

# A run that holds the lock, or a row in use, passes with time, however few retries the policy's own runs have.
_LEAST_RETRIES: Final = 3

# It sends no alerts, so a Secret that is only for alerts must not keep it from starting; and it exports nothing.
_NOT_NEEDED: Final = (
    frozenset({ALERT_OPERATIONS_URLS_ENV, ALERT_SECURITY_URLS_ENV})
    | OPERATORS_VARIABLES
    | frozenset(RESOURCE_FIELDS.values()) - {JOB_UID_ENV}
)


def revocation_job_name(uid: str) -> str:
    """Name of the Job, from the revocation's UID: its name is its author's choice and may contain personal data."""
    return f"revoke-{uid}"


def build_revocation_job(
    revocation: SessionRevocation, uid: str, policy: SessionPolicy, policy_uid: str, settings: Settings
) -> dict[str, Any]:
    """The Job, as the manifest to create. It is suspended: see :mod:`controller.revocation.revocation_reconciler`.

    Args:
        revocation: whose sessions end.
        uid: its UID.
        policy: where they are.
        policy_uid: its UID.
        settings: the operator's.

    Raises:
        InvalidPolicyError: as for a CronJob.
    """
    template = build_cron_job(policy, policy_uid, settings)["spec"]["jobTemplate"]
    labels = {**template["metadata"]["labels"], REVOCATION_LABEL: uid}
    pod = template["spec"]["template"]["spec"]
    (container,) = (c for c in pod["containers"] if c["name"] == CONTAINER_NAME)
    container["args"] = ["revoke"]
    container["env"] = [v for v in container["env"] if v["name"] not in _NOT_NEEDED]
    container["env"].append({"name": REVOCATION_ENV, "value": _target(revocation)})
    retries = max(policy.spec.job.retries, _LEAST_RETRIES)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": revocation_job_name(uid),
            "namespace": revocation.metadata.namespace,
            "labels": labels,
            "ownerReferences": [controller_reference(API_VERSION, REVOCATION_KIND, revocation.metadata.name, uid)],
        },
        "spec": {
            "suspend": True,
            "backoffLimit": retries,
            "activeDeadlineSeconds": job_deadline_seconds(policy.spec.job.model_copy(update={"retries": retries})),
            "podFailurePolicy": template["spec"]["podFailurePolicy"],
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _target(revocation: SessionRevocation) -> str:
    spec = revocation.spec
    target = RevocationTarget(user=spec.user, session_hash=spec.session_hash)
    # The kubelet replaces $(NAME) by another variable, perhaps one with a password, and $$ by $.
    return json.dumps(target.to_json_object()).replace("$", "\\u0024")
