"""Spans of the controller, exported with OpenTelemetry. Imported only where a collector is configured.

A run's trace begins in the job; the controller adds to it by the ids that follow from the UIDs of Job and Pod.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from datetime import datetime
from importlib.metadata import version
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision

from policy.manifest import SessionPolicy
from policy.opentelemetry_env import EXPORT_SECONDS, policy_attributes, resource_attributes, run_attributes
from policy.report import Outcome
from policy.status import RunRecord
from policy.tracing import root_span_id, trace_id, traceparent

SERVICE: Final = "session-policy-controller"
_CONTAINER: Final = "controller"
_RECONCILE: Final = "reconcile"


class Telemetry:
    """Implements :class:`controller.tracing.interface.Tracing`.

    Args:
        timeout: seconds that one export may take, with all its attempts.
        environment: of the process.
        log: gets a line when spans are no longer delivered, and when they are again.
    """

    def __init__(self, timeout: float, environment: Mapping[str, str], log: Any) -> None:
        # The SDK's own lines quote endpoints and headers.
        logger = logging.getLogger("opentelemetry")
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        release = version("session-policy-operator")
        defaults = resource_attributes(SERVICE, release, _CONTAINER, environment)
        # What the standard variables say of the service wins.
        resource = Resource.create({**defaults, **OTELResourceDetector().detect().attributes})
        self._ids = _GivenIds()
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        spans = BatchSpanProcessor(_Exporter(OTLPSpanExporter(timeout=timeout), log))
        self._provider.add_span_processor(spans)
        self._tracer = self._provider.get_tracer("session_policy", release)
        # For runs that the job would have sampled: its settings, which may be the policy's own, have decided.
        stand_in = TracerProvider(ALWAYS_ON, resource, id_generator=self._ids, shutdown_on_exit=False)
        stand_in.add_span_processor(spans)
        self._stand_in_tracer = stand_in.get_tracer("session_policy", release)

    @property
    def is_on(self) -> bool:
        """Always."""
        return True

    def traceparent(self, cron_job: Mapping[str, Any]) -> str | None:
        """The reconciliation's trace context, if it is sampled."""
        found = traceparent(cron_job)
        result = self._provider.sampler.should_sample(Context(), _context(found).trace_id, _RECONCILE)
        return found if result.decision is Decision.RECORD_AND_SAMPLE else None

    def record_reconciliation(
        self,
        policy: SessionPolicy,
        traceparent: str,
        began_ns: int,
        *,
        is_repair: bool = False,
        error: BaseException | None = None,
    ) -> None:
        """Record a span with the ids of the trace context; of a repair below it, of a failure beside it."""
        ids = _context(traceparent)
        span_id = ids.span_id if error is None else self._ids.random_span_id()
        parent = trace.set_span_in_context(trace.NonRecordingSpan(ids), Context()) if is_repair else Context()
        attributes = policy_attributes(policy.metadata.namespace, policy.metadata.name)
        with nullcontext() if is_repair else self._ids.given(ids.trace_id, span_id):
            span = self._tracer.start_span(_RECONCILE, parent, attributes=attributes, start_time=began_ns)
        if policy.metadata.generation is not None:
            span.set_attribute("session_policy.policy.generation", policy.metadata.generation)
        if error is not None:
            kind = f"{type(error).__module__}.{type(error).__qualname__}"
            # The API server's text may quote the manifest; it is in the log and in the status.
            span.add_event("exception", {"exception.type": kind})
            span.set_attribute("error.type", kind)
            span.set_status(trace.StatusCode.ERROR, kind)
        span.end()

    def record_outcome(self, namespace: str, name: str, record: RunRecord, *, pod_uid: str, reported: bool) -> None:
        """Record a span below the run's, and the run's own if its container could not."""
        if record.trace_id is None:
            return
        attributes = {
            **policy_attributes(namespace, name),
            **run_attributes(record),
            "k8s.job.name": record.job_name,
            "k8s.job.uid": record.job_uid,
        }
        ids = int(trace_id(record.job_uid), 16), int(root_span_id(record.job_uid, pod_uid), 16)
        if not reported:
            with self._ids.given(*ids):
                run = self._stand_in_tracer.start_span(
                    "session-policy run", Context(), start_time=_ns(record.start_time)
                )
            run.set_attributes({**attributes, "session_policy.run.reported": False})
            _fail(run, record)
            run.end(_ns(record.completion_time))
        # The job has sampled it, or the line above has: its parent is there.
        context = trace.set_span_in_context(trace.NonRecordingSpan(_sampled(*ids)), Context())
        span = self._tracer.start_span("record outcome", context, attributes=attributes)
        _fail(span, record)
        span.end()

    def close(self) -> None:
        """Send the rest, from a thread that does not keep the process from ending."""
        closing = threading.Thread(target=self._provider.shutdown, name="telemetry-close", daemon=True)
        closing.start()
        closing.join(EXPORT_SECONDS)


class _GivenIds(RandomIdGenerator):
    """Generates random ids, except for a span that must have given ones."""

    def __init__(self) -> None:
        self._given: ContextVar[tuple[int, int] | None] = ContextVar("given", default=None)

    @contextmanager
    def given(self, trace_id: int, span_id: int) -> Iterator[None]:
        """Within the block, the root span of a trace gets these ids."""
        token = self._given.set((trace_id, span_id))
        try:
            yield
        finally:
            self._given.reset(token)

    def random_span_id(self) -> int:
        """A new random id."""
        return super().generate_span_id()

    def generate_trace_id(self) -> int:
        given = self._given.get()
        return given[0] if given else super().generate_trace_id()

    def generate_span_id(self) -> int:
        given = self._given.get()
        return given[1] if given else super().generate_span_id()


class _Exporter(SpanExporter):
    """Logs that spans are not delivered once, not with every batch."""

    def __init__(self, exporter: SpanExporter, log: Any) -> None:
        self._exporter = exporter
        self._log = log
        self._delivers = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        delivers = result is SpanExportResult.SUCCESS
        if self._delivers and not delivers:
            self._log.warning(
                "telemetry not delivered", because="the collector does not accept traces; they are lost meanwhile"
            )
        elif delivers and not self._delivers:
            self._log.info("telemetry delivered again")
        self._delivers = delivers
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _fail(span: trace.Span, record: RunRecord) -> None:
    if record.outcome is Outcome.FAILED:
        span.set_status(trace.StatusCode.ERROR, f"{record.reason}: {record.message}")


def _context(traceparent: str) -> trace.SpanContext:
    """The ids of a trace context that this product made."""
    _, trace_id, span_id, _ = traceparent.split("-")
    return _sampled(int(trace_id, 16), int(span_id, 16))


def _sampled(trace_id: int, span_id: int) -> trace.SpanContext:
    return trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))


def _ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9
