"""The controller's traces: the interface, and an implementation for no traces.

That for OpenTelemetry is in :mod:`controller.tracing.opentelemetry_export`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from policy.manifest import SessionPolicy
from policy.opentelemetry_env import TelemetrySettings
from policy.status import RunRecord


class Tracing(Protocol):
    """Traces of reconciliations and of recorded runs. No method but :meth:`close` waits for a collector."""

    @property
    def is_on(self) -> bool:
        """Whether there is a collector."""

    def traceparent(self, cron_job: Mapping[str, Any]) -> str | None:
        """W3C trace context of the reconciliation that applies this CronJob; None where it is not traced."""

    def record_reconciliation(
        self,
        policy: SessionPolicy,
        traceparent: str,
        began_ns: int,
        *,
        is_repair: bool = False,
        error: BaseException | None = None,
    ) -> None:
        """Record the span of a reconciliation that changed a policy's CronJob or was refused to; it ends now.

        Not for those that change nothing: there are thousands of them.

        Args:
            policy: the policy.
            traceparent: of the reconciliation that applies the desired CronJob.
            began_ns: when it began, in nanoseconds since 1970.
            is_repair: whether it undid what somebody had changed.
            error: why it was refused, if it was.
        """

    def record_outcome(self, namespace: str, name: str, record: RunRecord, *, pod_uid: str, reported: bool) -> None:
        """Record a span in the run's own trace: its outcome has been written to the policy's status.

        Nothing where the record names no trace. A container that left no report has exported nothing, for the report
        comes first: then the span of the run is written here, in its place.

        Args:
            namespace: of the policy.
            name: of the policy.
            record: what was recorded.
            pod_uid: UID of the Pod that it was recorded from; empty if there is none any more.
            reported: whether that Pod left a readable report.
        """

    def close(self) -> None:
        """Send the rest within :data:`policy.opentelemetry_env.EXPORT_SECONDS`; never raises."""


class NoTracing:
    """Records nothing."""

    is_on = False

    def traceparent(self, cron_job: Mapping[str, Any]) -> str | None:
        """None."""
        return None

    def record_reconciliation(
        self,
        policy: SessionPolicy,
        traceparent: str,
        began_ns: int,
        *,
        is_repair: bool = False,
        error: BaseException | None = None,
    ) -> None:
        """Do nothing."""

    def record_outcome(self, namespace: str, name: str, record: RunRecord, *, pod_uid: str, reported: bool) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def open_tracing(environment: Mapping[str, str], log: Any) -> Tracing:
    """Traces as the standard ``OTEL_*`` variables configure them. Wrong variables are logged, and turn traces off.

    Args:
        environment: of the process.
        log: gets a warning where nothing can be traced, or nothing is delivered.
    """
    settings = TelemetrySettings.from_environment(environment)
    if settings.problems:
        log.warning("telemetry off", because="; ".join(settings.problems))
    if settings.traces is None:
        return NoTracing()
    try:
        # Imported here, so that a controller without a collector does not pay for it.
        from controller.tracing.opentelemetry_export import Telemetry  # noqa: PLC0415

        return Telemetry(settings.traces, environment, log)
    except Exception as error:
        log.warning("telemetry off", because=f"OpenTelemetry failed to start ({type(error).__name__})")
        return NoTracing()
