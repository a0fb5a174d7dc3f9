"""The cleanup container's environment variables, read from the Pod spec of a CronJob, a Job or a Pod."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from policy.names import CONTAINER_NAME, SPEC_ENV


def variables(pod_spec: Mapping[str, Any]) -> dict[str, str]:
    """The container's variables that have a literal value."""
    containers = [c for c in pod_spec.get("containers") or [] if c.get("name") == CONTAINER_NAME]
    return {v["name"]: v["value"] for c in containers for v in c.get("env") or [] if v.get("value")}


def policy(pod_spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The policy's manifest in them; empty if there is none that can be read."""
    try:
        found = json.loads(variables(pod_spec)[SPEC_ENV])
    except (KeyError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
