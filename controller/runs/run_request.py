"""Runs asked for by the policy's ``run-requested-at`` annotation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from controller.manifests.owner_reference import controller_reference
from controller.runs.job_state import MANUAL_ANNOTATION
from policy.names import RUN_REQUEST_ANNOTATION
from policy.report import printable

_MAX_TOKEN: Final = 256
_DIGEST_LENGTH: Final = 10


def requested_run(policy: Mapping[str, Any]) -> str | None:
    """The token of the run that the policy asks for, fit for its status; None if it asks for none.

    A token that is too long or not printable is cut, and ends in a digest that keeps it apart from others.
    """
    token = (policy["metadata"].get("annotations") or {}).get(RUN_REQUEST_ANNOTATION)
    if not token:
        return None
    if token == printable(token, _MAX_TOKEN):
        return str(token)
    digest = _digest(token)
    return f"{printable(token, _MAX_TOKEN - len(digest) - 1)}-{digest}"


def build_job(cron_job: Mapping[str, Any], policy_uid: str, token: str) -> dict[str, Any]:
    """The Job of a requested run: as the CronJob would create it, with a name derived from policy and token."""
    metadata = cron_job["metadata"]
    template = cron_job["spec"]["jobTemplate"]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            # With the policy's UID: a policy that was deleted and created again may use the same token.
            "name": f"{metadata['name']}-{_digest(f'{policy_uid} {token}')}",
            "namespace": metadata["namespace"],
            "labels": dict(template["metadata"]["labels"]),
            "annotations": {MANUAL_ANNOTATION: "manual", RUN_REQUEST_ANNOTATION: token},
            "ownerReferences": [controller_reference("batch/v1", "CronJob", metadata["name"], metadata["uid"])],
        },
        "spec": template["spec"],
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
