"""The OpenTelemetry variables of the cleanup container, from the operator's configuration and the policy's."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator
from pydantic_settings import SettingsConfigDict

from controller.settings.environment import PREFIX, EnvironmentSettings, Flag, whole_number
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


# No value is repeated: a URL may hold a password.


def _collector_url(text: str) -> str:
    if text and not is_url(text):
        raise ValueError("must be a URL that begins with http:// or https://")
    return text


def _secret_name(text: str) -> str:
    if text and not DNS_NAME.fullmatch(text):
        raise ValueError("must be the name of a Secret")
    return text


def _secret_key(text: str) -> str:
    if not _SECRET_KEY.fullmatch(text):
        raise ValueError("must be a key of a Secret")
    return text


class JobTelemetry(EnvironmentSettings):
    """What the operator's administrator wants every run to export: ``SESSION_POLICY_JOB_TELEMETRY_*``.

    Attributes:
        endpoint: URL of the collector, for OTLP over HTTP; empty for none.
        headers_secret: name of a Secret, in each policy's namespace, with the headers that the collector wants; empty
            for none. Where it is missing, a run goes on without telemetry.
        headers_key: its key; the value is ``name=value,name=value``.
        sampling_percent: share of the runs that are traced.
        resource_attributes: further ones, as ``OTEL_RESOURCE_ATTRIBUTES`` has them.
        metrics: whether a run exports its counts as metrics, too.
    """

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}JOB_TELEMETRY_")

    endpoint: Annotated[str, AfterValidator(_collector_url)] = ""
    headers_secret: Annotated[str, AfterValidator(_secret_name)] = ""
    headers_key: Annotated[str, AfterValidator(_secret_key)] = "headers"
    sampling_percent: Annotated[int, whole_number(0, _WHOLE)] = _WHOLE
    resource_attributes: str = ""
    metrics: Flag = True

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
        if self.headers_secret and not wanted.endpoint:  # they may be a password, and that endpoint anybody's
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
