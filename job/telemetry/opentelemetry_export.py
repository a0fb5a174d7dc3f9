"""Exports the trace and the metrics of one run over OTLP, once, when its report is written.

A run has about a dozen spans, which are kept until its end: nothing calls a collector while sessions are deleted.
Imported only if an OTLP endpoint is set.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import partial
from importlib.metadata import version
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from job.logs.run_logs import safe_traceback
from job.telemetry.trace import Export, changed_counts
from policy.manifest import SessionPolicy
from policy.names import CONTAINER_NAME, JOB_UID_ENV, POD_UID_ENV
from policy.opentelemetry_env import (
    CHANGE_COUNTS,
    EXPORT_SECONDS,
    TRACEPARENT_ENV,
    TelemetrySettings,
    counts,
    policy_attributes,
    resource_attributes,
    run_attributes,
)
from policy.report import Outcome, RunReport, Vitals
from policy.stores import RedisMode
from policy.tracing import root_span_id, trace_id
from stores.model.calls import Calls, Store, collected_calls, is_failure
from stores.model.errors import ConfigurationError, RunError
from stores.model.tally import Tally
from stores.redis.connection.url import parse_url as parse_redis_url
from stores.sql.connection.connect import parse_url as parse_database_url
from stores.waiting.bounded_wait import BoundedCalls, has_succeeded

SERVICE: Final = "session-policy-job"
_SCOPE: Final = "session_policy"
_UNITS: Final = {"redis.index_entries_removed": "{entry}", "redis.ttl_added": "{key}", "redis.sessions": "{key}"}

Attributes = Mapping[str, str | int | float | bool]


class OpenTelemetryTrace:
    """Implements :class:`job.telemetry.trace.Trace`. The run's span begins when this is made.

    Args:
        settings: what is exported.
        environment: of the process.
    """

    def __init__(self, settings: TelemetrySettings, environment: Mapping[str, str]) -> None:
        _silence()
        self._release = version("session-policy-operator")
        defaults = resource_attributes(SERVICE, self._release, CONTAINER_NAME, environment)
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
        self._resource = Resource.create({**defaults, **OTELResourceDetector().detect().attributes})
        self._policy: Attributes = {}
        self._stores: Mapping[Store, Attributes] = {}
        self._metrics = _RunMetrics(self._resource, settings.metrics) if settings.metrics is not None else None
        self._ended = InMemorySpanExporter()
        self._exporter = None if settings.traces is None else OTLPSpanExporter(timeout=_bounded(settings.traces))
        provider = TracerProvider(resource=self._resource, id_generator=_RunIds(environment), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._ended))
        self._tracer = provider.get_tracer(_SCOPE, self._release) if self._exporter else trace.NoOpTracer()
        self._root = self._tracer.start_span("session-policy run", context=Context(), links=_links(environment))

    @property
    def id(self) -> str | None:
        """The trace id; None if the sampler dropped this run."""
        context = self._root.get_span_context()
        return trace.format_trace_id(context.trace_id) if context.trace_flags.sampled else None

    def set_policy(self, policy: SessionPolicy, database_url: str | None, redis_url: str | None) -> None:
        """Sets the attributes of the policy and its stores."""
        self._policy = policy_attributes(policy.metadata.namespace, policy.metadata.name)
        self._stores = _stores(policy, database_url, redis_url)

    @contextmanager
    def step(self, name: str, tally: Tally) -> Iterator[None]:
        """A span for the step, with a child span for each store that it called."""
        before = deepcopy(tally)
        span = self._tracer.start_span(name, context=trace.set_span_in_context(self._root, Context()))
        with collected_calls() as collected:
            try:
                yield
            except BaseException as error:
                _record(span, error)
                raise
            finally:
                span.set_attributes({f"session_policy.{name}": n for name, n in changed_counts(before, tally).items()})
                for store, calls in collected.items():
                    self._store_span(span, store, calls)
                span.end()

    def _store_span(self, step: trace.Span, store: Store, calls: Calls) -> None:
        attributes = self._stores.get(store, {})
        span = self._tracer.start_span(
            str(attributes.get("db.system.name", store.value)),
            context=trace.set_span_in_context(step, Context()),
            kind=trace.SpanKind.CLIENT,
            start_time=calls.began_ns,
            attributes={
                **attributes,
                "session_policy.store.calls": calls.count,
                "session_policy.store.failed_calls": calls.failed,
                "session_policy.store.busy_seconds": round(calls.seconds, 6),
            },
        )
        if calls.error is not None:
            _record(span, calls.error)
        span.end(calls.ended_ns)

    def finish(self, report: RunReport) -> Export:
        """Ends the run's span and starts the export."""
        self._root.set_attributes({**self._policy, **run_attributes(report)})
        if report.outcome is Outcome.FAILED:
            self._root.set_status(trace.StatusCode.ERROR, f"{report.reason}: {report.message}")
        self._root.end()
        work = {}
        if self._exporter is not None and (spans := self._ended.get_finished_spans()):
            work["traces"] = partial(_export, self._exporter, spans)
        if self._metrics is not None:
            work["metrics"] = partial(self._metrics.export, report, self._policy)
        return _PendingExport(list(work), BoundedCalls(list(work.values()), "telemetry", EXPORT_SECONDS))


class _PendingExport:
    """Implements :class:`job.telemetry.trace.Export`, with one thread per signal."""

    def __init__(self, names: list[str], calls: BoundedCalls[bool]) -> None:
        self._names = names
        self._calls = calls

    def wait(self) -> list[str]:
        """What no collector accepted in time."""
        return [
            name
            for name, call in zip(self._names, self._calls.wait(), strict=True)
            if not has_succeeded(call) or call.result() is not True
        ]


class _RunIds(RandomIdGenerator):
    """Generates the trace and root span ids that the controller also derives from the Job; random without a Job."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        job = environment.get(JOB_UID_ENV, "")
        pod = environment.get(POD_UID_ENV, "")
        self._trace_id = int(trace_id(job), 16) if job else super().generate_trace_id()
        # The first span is the root.
        self._root_span_id: int | None = int(root_span_id(job, pod), 16) if job and pod else None

    def generate_trace_id(self) -> int:
        return self._trace_id

    def generate_span_id(self) -> int:
        first, self._root_span_id = self._root_span_id, None
        return super().generate_span_id() if first is None else first


class _RunMetrics:
    """The run's counts as metrics: counters for what was done, gauges for what was found."""

    def __init__(self, resource: Resource, timeout: float) -> None:
        self._exporter = _MetricExporter(timeout=_bounded(timeout))
        reader = PeriodicExportingMetricReader(self._exporter, export_interval_millis=math.inf)
        self._provider = MeterProvider([reader], resource, shutdown_on_exit=False)

    def export(self, report: RunReport, policy: Attributes) -> bool:
        """Exports the metrics. Returns whether a collector accepted them."""
        meter = self._provider.get_meter(_SCOPE)
        for name, count in counts(report.sessions, report.redis).items():
            options = {"name": f"session_policy.run.{name}", "unit": _UNITS.get(name, "{session}")}
            if name in CHANGE_COUNTS:
                meter.create_counter(**options).add(count, policy)
            else:
                meter.create_gauge(**options).set(count, policy)
        for name, unit, value in _vitals(report):
            meter.create_gauge(f"session_policy.run.{name}", unit).set(value, policy)
        meter.create_gauge("session_policy.run.duration", "s").set(report.duration_seconds, policy)
        outcome = {"session_policy.run.outcome": report.outcome.value}
        meter.create_counter("session_policy.run.completed", "{run}").add(1, {**policy, **outcome})
        self._provider.force_flush()
        return self._exporter.accepted


def _vitals(report: RunReport) -> list[tuple[str, str, float]]:
    """The run's measurements of the stores: name, unit, value."""
    measured = report.vitals or Vitals()
    hourly = measured.created_per_hour
    values = (
        ("redis.memory", "By", measured.redis_memory_bytes),
        ("redis.hit_ratio", "1", measured.redis_hit_ratio),
        ("sessions.creation_rate", "{session}/s", None if hourly is None else hourly / 3600),
        ("sessions.average_duration", "s", measured.average_session_seconds),
    )
    return [(name, unit, value) for name, unit, value in values if value is not None]


class _MetricExporter(OTLPMetricExporter):
    """Records whether its export was accepted."""

    accepted = False

    def export(self, metrics_data: MetricsData, *arguments: Any, **options: Any) -> MetricExportResult:
        result = super().export(metrics_data, *arguments, **options)
        self.accepted = result is MetricExportResult.SUCCESS
        return result


def _export(exporter: OTLPSpanExporter, spans: tuple[ReadableSpan, ...]) -> bool:
    return exporter.export(spans) is SpanExportResult.SUCCESS


def _bounded(seconds: float) -> float:
    """The exporter's timeout: not longer than the run waits for it."""
    return min(seconds, EXPORT_SECONDS)


def _stores(policy: SessionPolicy, database_url: str | None, redis_url: str | None) -> dict[Store, Attributes]:
    """Attributes of the stores' spans, by OpenTelemetry's semantic conventions for databases."""
    found: dict[Store, Attributes] = {}
    redis = policy.spec.stores.redis
    # The run itself reports an invalid URL.
    with suppress(ConfigurationError):
        if database_url:
            url = parse_database_url(database_url)
            found[Store.DATABASE] = _store(url.get_dialect().name, url.host, url.port)
    with suppress(ConfigurationError):
        if redis_url and redis:
            addresses = parse_redis_url(redis_url, redis.mode).addresses
            alone = redis.mode is RedisMode.STANDALONE and addresses
            found[Store.REDIS] = _store("redis", *((addresses[0].host, addresses[0].port) if alone else (None, None)))
    return found


def _store(system: str, host: str | None, port: int | None) -> Attributes:
    known = {"db.system.name": system, "server.address": host, "server.port": port}
    return {name: value for name, value in known.items() if value}


def _links(environment: Mapping[str, str]) -> list[trace.Link]:
    """Link to the reconcile span that configured this run: no parent, because it ended long ago in another trace."""
    carrier = {"traceparent": environment.get(TRACEPARENT_ENV, "")}
    found = trace.get_current_span(TraceContextTextMapPropagator().extract(carrier, Context())).get_span_context()
    return [trace.Link(found)] if found.is_valid and found.trace_flags.sampled else []


def _record(span: trace.Span, error: BaseException) -> None:
    """Marks a span as failed. Only our own messages are recorded: others may quote an id or a URL."""
    if not is_failure(error):
        return
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    message = {"exception.message": str(error)} if isinstance(error, RunError) else {}
    span.add_event(
        "exception", {"exception.type": name, **message, "exception.stacktrace": "\n".join(safe_traceback(error))}
    )
    span.set_attribute("error.type", name)
    span.set_status(trace.StatusCode.ERROR, message.get("exception.message", name))


def _silence() -> None:
    """Silences the SDK's log lines, which contain endpoints and headers; the run logs failed exports itself."""
    logger = logging.getLogger("opentelemetry")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
