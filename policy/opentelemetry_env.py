"""OpenTelemetry's standard environment variables, as far as this product evaluates them itself.

The SDK reads the rest (headers, certificates, resource attributes, sampler). It is imported only where an endpoint is
set and all of these variables are valid: it would guess, log values that may be secret, or fail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from policy.names import (
    CRON_JOB_NAME_ENV,
    JOB_NAME_ENV,
    JOB_UID_ENV,
    NAMESPACE_ENV,
    NODE_NAME_ENV,
    POD_NAME_ENV,
    POD_UID_ENV,
)
from policy.report import RedisCounts, RunReport, SessionCounts

EXPORT_SECONDS: Final = 2.0
"""The most that exporting may add to the end of a process, whatever the collector does."""

TRACEPARENT_ENV: Final = "TRACEPARENT"
"""W3C trace context of the reconciliation that configured a run."""

ENDPOINT_ENV: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
SAMPLER_ENV: Final = "OTEL_TRACES_SAMPLER"
SAMPLER_ARGUMENT_ENV: Final = "OTEL_TRACES_SAMPLER_ARG"
DISABLED_ENV: Final = "OTEL_SDK_DISABLED"
PROTOCOL_ENV: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"
HEADERS_ENV: Final = "OTEL_EXPORTER_OTLP_HEADERS"
METRICS_ENV: Final = "OTEL_METRICS_EXPORTER"
RESOURCE_ENV: Final = "OTEL_RESOURCE_ATTRIBUTES"

OPERATORS_VARIABLES: Final = frozenset(
    {TRACEPARENT_ENV, ENDPOINT_ENV, PROTOCOL_ENV, HEADERS_ENV, SAMPLER_ENV, SAMPLER_ARGUMENT_ENV}
    | {DISABLED_ENV, METRICS_ENV, RESOURCE_ENV}
    # Never set, but no collector of a policy's own must get what was meant for the operator's.
    | {"OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_METRICS_HEADERS"}
)
"""In a run's container only the operator sets these. It may have others of OpenTelemetry's, from the administrator."""

CHANGE_COUNTS: Final = frozenset(
    {
        "sessions.evicted",
        "sessions.deleted",
        "sessions.failed",
        "redis.deleted",
        "redis.index_entries_removed",
        "redis.ttl_added",
    }
)
"""The counts of what a run changed; the others are of what it found."""

_OTLP: Final = "OTEL_EXPORTER_OTLP"
_DEFAULT_TIMEOUT_SECONDS: Final = 10.0
_RATIO_SAMPLERS: Final = frozenset({"traceidratio", "parentbased_traceidratio"})
_SAMPLERS: Final = _RATIO_SAMPLERS | {
    "always_on",
    "always_off",
    "parentbased_always_on",
    "parentbased_always_off",
}
_NEVER: Final = frozenset({"always_off", "parentbased_always_off"})
_LOW_BITS: Final = 64
"""Of a trace id; these are what the SDK's ratio samplers look at."""
RESOURCE_FIELDS: Final = {
    "k8s.namespace.name": NAMESPACE_ENV,
    "k8s.pod.name": POD_NAME_ENV,
    "k8s.pod.uid": POD_UID_ENV,
    "k8s.node.name": NODE_NAME_ENV,
    "k8s.job.name": JOB_NAME_ENV,
    "k8s.job.uid": JOB_UID_ENV,
    "k8s.cronjob.name": CRON_JOB_NAME_ENV,
}
"""Resource attributes from the downward API, with the variables that hold them."""


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """What is exported.

    Attributes:
        traces: seconds that one export of spans may take, with all its attempts; None for no traces.
        metrics: the same for metrics.
        problems: what is wrong, for people; names variables, never their values. A signal with a problem is off.
    """

    traces: float | None
    metrics: float | None
    problems: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.traces is not None or self.metrics is not None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> TelemetrySettings:
        """Read the ``OTEL_*`` variables. Without an endpoint, everything is off."""
        if environment.get(DISABLED_ENV, "").strip().lower() == "true":
            return cls(None, None)
        problems: dict[str, None] = {}
        on = {}
        for signal in ("TRACES", "METRICS"):
            found = _Signal(signal, environment)
            wrong = found.problems() if found.wanted else []
            problems |= dict.fromkeys(wrong)
            on[signal] = found.timeout_seconds if found.wanted and not wrong else None
        return cls(on["TRACES"], on["METRICS"], tuple(problems))


class _Signal:
    """The variables of traces or of metrics: each has one of its own, and one for all signals."""

    def __init__(self, name: str, values: Mapping[str, str]) -> None:
        self._name = name
        self._values = values

    @property
    def wanted(self) -> bool:
        """Whether an endpoint is set and the exporter is not ``none``."""
        return bool(self._value("ENDPOINT")[1]) and self._exporter != "none"

    @property
    def timeout_seconds(self) -> float:
        """How long one export may take."""
        return float(self._value("TIMEOUT")[1] or _DEFAULT_TIMEOUT_SECONDS)

    def problems(self) -> list[str]:
        found = []
        if self._exporter not in ("", "otlp"):
            found.append(f"OTEL_{self._name}_EXPORTER must be otlp or none")
        checks: tuple[tuple[str, Callable[[str], bool], str], ...] = (
            ("ENDPOINT", is_url, "must be a URL that begins with http:// or https://"),
            ("PROTOCOL", lambda p: p == "http/protobuf", "must be http/protobuf (usually port 4318, not 4317)"),
            ("TIMEOUT", lambda t: 0 < (_number(t) or 0) < math.inf, "must be a number of seconds"),
            ("COMPRESSION", lambda c: c in ("none", "gzip", "deflate"), "must be none, gzip or deflate"),
            ("HEADERS", _are_headers, "must be a list name=value,name=value"),
        )
        for suffix, is_right, rule in checks:
            name, value = self._value(suffix)
            if value and not is_right(value):
                found.append(f"{name} {rule}")
        return found + (_sampler_problems(self._values) if self._name == "TRACES" else [])

    @property
    def _exporter(self) -> str:
        return self._values.get(f"OTEL_{self._name}_EXPORTER", "")

    def _value(self, suffix: str) -> tuple[str, str]:
        """The variable that applies, and its value."""
        own, common = f"{_OTLP}_{self._name}_{suffix}", f"{_OTLP}_{suffix}"
        name = own if self._values.get(own) else common
        return name, self._values.get(name, "")


def _sampler_problems(values: Mapping[str, str]) -> list[str]:
    sampler = values.get(SAMPLER_ENV, "").lower()
    if sampler and sampler not in _SAMPLERS:
        return [f"{SAMPLER_ENV} must be one of {', '.join(sorted(_SAMPLERS))}"]
    argument = values.get(SAMPLER_ARGUMENT_ENV, "")
    ratio = _number(argument)
    if sampler in _RATIO_SAMPLERS and argument and not (ratio is not None and 0 <= ratio <= 1):
        return [f"{SAMPLER_ARGUMENT_ENV} must be a number from 0 to 1"]
    return []


def samples(environment: Mapping[str, str], trace_id: str) -> bool:
    """Whether a trace that begins in a process of this environment is exported, as the SDK decides it.

    Args:
        environment: the ``OTEL_*`` variables.
        trace_id: 32 hexadecimal digits.
    """
    sampler = environment.get(SAMPLER_ENV, "").lower()
    if TelemetrySettings.from_environment(environment).traces is None or sampler in _NEVER:
        return False
    if sampler not in _RATIO_SAMPLERS:
        return True
    ratio = float(environment.get(SAMPLER_ARGUMENT_ENV) or 1)
    share: int = 2**_LOW_BITS
    return int(trace_id, 16) % share < round(ratio * share)


def is_url(text: str) -> bool:
    """Whether this is an HTTP URL that a collector may have."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0  # reading it checks it
    except ValueError:
        return False


def _are_headers(text: str) -> bool:
    return all("=" in part and part.strip()[0] != "=" for part in text.split(",") if part.strip())


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def resource_attributes(service: str, version: str, container: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The resource attributes of the process, by OpenTelemetry's semantic conventions and the downward API.

    Args:
        service: name of the service.
        version: its version.
        container: name of its container.
        environment: of the process.
    """
    known = {name: environment.get(variable, "") for name, variable in RESOURCE_FIELDS.items()}
    if known["k8s.pod.name"]:
        known["k8s.container.name"] = container
    return {"service.name": service, "service.version": version} | {k: v for k, v in known.items() if v}


def policy_attributes(namespace: str, name: str) -> dict[str, str]:
    """Which policy a span or a metric is about."""
    return {"session_policy.policy.namespace": namespace, "session_policy.policy.name": name}


def run_attributes(report: RunReport) -> dict[str, str | int | bool]:
    """How a run ended, and its counts; nothing that names a session or a user."""
    attributes: dict[str, str | int | bool] = {
        "session_policy.run.outcome": report.outcome.value,
        "session_policy.run.reason": report.reason,
        "session_policy.run.dry_run": report.dry_run,
    }
    if report.policy_generation is not None:
        attributes["session_policy.policy.generation"] = report.policy_generation
    return attributes | {f"session_policy.{name}": n for name, n in counts(report.sessions, report.redis).items()}


def counts(sessions: SessionCounts, redis: RedisCounts | None) -> dict[str, int]:
    """The counts of a run by name: ``sessions.deleted``, ``redis.orphaned``."""
    stores: dict[str, SessionCounts | RedisCounts | None] = {"sessions": sessions, "redis": redis}
    return {f"{store}.{name}": n for store, known in stores.items() if known for name, n in known}
