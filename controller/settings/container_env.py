"""What a Pod's container is handed, read from the Pod's spec: of a CronJob, a Job or a Pod."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from policy.names import CONTAINER_NAME, SPEC_ENV


def variables(pod_spec: Mapping[str, Any]) -> dict[str, str]:
    """The container's variables that have a value of their own."""
    containers = [c for c in pod_spec.get("containers") or [] if c.get("name") == CONTAINER_NAME]
    return {v["name"]: v["value"] for c in containers for v in c.get("env") or [] if v.get("value")}


def policy(pod_spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The policy's manifest; empty if there is none that can be read."""
    try:
        found = json.loads(variables(pod_spec)[SPEC_ENV])
    except (KeyError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
