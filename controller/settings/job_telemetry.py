"""What runs export, and where to: by the operator's configuration, and as far as a policy wants it.

All of it becomes OpenTelemetry's standard variables of the container.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.settings.pod_extras import DNS_NAME
from policy.names import (
    CRON_JOB_NAME_ENV,
    JOB_NAME_ENV,
    NAMESPACE_ENV,
    NODE_NAME_ENV,
    POD_NAME_ENV,
    POD_UID_ENV,
)
from policy.opentelemetry_env import (
    DISABLED_ENV,
    ENDPOINT_ENV,
    HEADERS_ENV,
    METRICS_ENV,
    PROTOCOL_ENV,
    RESOURCE_ENV,
    SAMPLER_ARGUMENT_ENV,
    SAMPLER_ENV,
    is_url,
)
from policy.spec import Telemetry

_ENDPOINT: Final = "SESSION_POLICY_JOB_TELEMETRY_ENDPOINT"
_HEADERS_SECRET: Final = "SESSION_POLICY_JOB_TELEMETRY_HEADERS_SECRET"  # noqa: S105 a variable's name
_HEADERS_KEY: Final = "SESSION_POLICY_JOB_TELEMETRY_HEADERS_KEY"
_SAMPLING: Final = "SESSION_POLICY_JOB_TELEMETRY_SAMPLING_PERCENT"
_RESOURCE: Final = "SESSION_POLICY_JOB_TELEMETRY_RESOURCE_ATTRIBUTES"
_METRICS: Final = "SESSION_POLICY_JOB_TELEMETRY_METRICS"

_SECRET_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_WHOLE: Final = 100

# Resource attributes of what is exported, by the downward API.
_FIELDS: Final = {
    NAMESPACE_ENV: "metadata.namespace",
    POD_NAME_ENV: "metadata.name",
    POD_UID_ENV: "metadata.uid",
    NODE_NAME_ENV: "spec.nodeName",
    JOB_NAME_ENV: "metadata.labels['batch.kubernetes.io/job-name']",
}


@dataclass(frozen=True, slots=True)
class JobTelemetry:
    """What the operator's administrator wants of every run.

    Attributes:
        endpoint: URL of the collector, for OTLP over HTTP; empty for none.
        headers_secret: name of a Secret, in each policy's namespace, with the headers that the collector wants; empty
            for none. Where it is missing, a run goes on without telemetry.
        headers_key: its key; the value is ``name=value,name=value``.
        sampling_percent: share of the runs that are traced.
        resource_attributes: further ones, as ``OTEL_RESOURCE_ATTRIBUTES`` has them.
        metrics: whether a run exports its counts as metrics, too.
    """

    endpoint: str = ""
    headers_secret: str = ""
    headers_key: str = "headers"
    sampling_percent: int = _WHOLE
    resource_attributes: str = ""
    metrics: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], problems: list[str]) -> JobTelemetry:
        """Read the ``SESSION_POLICY_JOB_TELEMETRY_*`` variables.

        Args:
            environment: of the process.
            problems: gets a line for each variable that is wrong.
        """

        def text(name: str, default: str = "") -> str:
            return environment.get(name, "").strip() or default

        endpoint, secret, key = text(_ENDPOINT), text(_HEADERS_SECRET), text(_HEADERS_KEY, "headers")
        percent, metrics = text(_SAMPLING, str(_WHOLE)), text(_METRICS, "true")
        # No value is repeated: a URL may hold a password.
        if endpoint and not is_url(endpoint):
            problems.append(f"{_ENDPOINT} must be a URL that begins with http:// or https://")
        if secret and not DNS_NAME.fullmatch(secret):
            problems.append(f"{_HEADERS_SECRET} must be the name of a Secret")
        if not _SECRET_KEY.fullmatch(key):
            problems.append(f"{_HEADERS_KEY} must be a key of a Secret")
        if not (percent.isascii() and percent.isdigit() and int(percent) <= _WHOLE):
            problems.append(f"{_SAMPLING} must be a whole number from 0 to {_WHOLE}")
            percent = str(_WHOLE)
        if metrics not in ("true", "false"):
            problems.append(f"{_METRICS} must be true or false")
        return cls(endpoint, secret, key, int(percent), text(_RESOURCE), metrics == "true")

    def variables(self, wanted: Telemetry, cron_job_name: str) -> list[dict[str, Any]]:
        """The variables of a policy's container; none where nothing is exported, so that nothing changes there.

        Args:
            wanted: what the policy says.
            cron_job_name: name of its CronJob.
        """
        if not wanted.enabled:
            return [{"name": DISABLED_ENV, "value": "true"}]  # the administrator's variables may name a collector, too
        endpoint = wanted.endpoint or self.endpoint
        if not endpoint:
            return []
        found: list[dict[str, Any]] = [
            {"name": ENDPOINT_ENV, "value": endpoint},
            {"name": PROTOCOL_ENV, "value": "http/protobuf"},
        ]
        if self.headers_secret and not wanted.endpoint:  # they may be a password, and whose that endpoint is not known
            key = {"name": self.headers_secret, "key": self.headers_key, "optional": True}
            found.append({"name": HEADERS_ENV, "valueFrom": {"secretKeyRef": key}})
        percent = self.sampling_percent if wanted.sampling_percent is None else wanted.sampling_percent
        if percent < _WHOLE:
            found.append({"name": SAMPLER_ENV, "value": "parentbased_traceidratio"})
            found.append({"name": SAMPLER_ARGUMENT_ENV, "value": str(percent / _WHOLE)})
        if not self.metrics:
            found.append({"name": METRICS_ENV, "value": "none"})
        if self.resource_attributes:
            found.append({"name": RESOURCE_ENV, "value": self.resource_attributes})
        found += [
            {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
            for name, path in _FIELDS.items()
        ]
        return [*found, {"name": CRON_JOB_NAME_ENV, "value": cron_job_name}]
