"""The trace context of the reconciliation, as a variable in the CronJob's container, so that runs link to it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from controller.settings.container_env import variables
from policy.names import CONTAINER_NAME
from policy.opentelemetry_env import TRACEPARENT_ENV, TelemetrySettings


def linked(cron_job: Mapping[str, Any], traceparent: str | None) -> dict[str, Any]:
    """The manifest with that variable, if its runs are traced.

    Args:
        cron_job: the manifest without it.
        traceparent: W3C trace context; None to leave it out.
    """
    made = copy.deepcopy(dict(cron_job))
    pod = _pod(made)
    if traceparent is not None and TelemetrySettings.from_environment(variables(pod)).traces is not None:
        (container,) = (c for c in pod["containers"] if c["name"] == CONTAINER_NAME)
        container["env"].append({"name": TRACEPARENT_ENV, "value": traceparent})
    return made


def link(cron_job: Mapping[str, Any]) -> str | None:
    """The trace context in a CronJob; None if there is none."""
    return variables(_pod(cron_job)).get(TRACEPARENT_ENV)


def _pod(cron_job: Mapping[str, Any]) -> Mapping[str, Any]:
    pod: Mapping[str, Any] = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return pod
