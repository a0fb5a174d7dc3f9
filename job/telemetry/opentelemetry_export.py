"""OpenTelemetry in the job: one trace and the metrics of one run, sent once, when its report is written.

Spans are kept until the end: a run has a dozen of them. So nothing talks to a collector while sessions are deleted, and
what remains to bound is one request. Imported only where there is somewhere to export to.
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

from job.logs.logs import safe_traceback
from job.telemetry.trace import Delivery, changes
from policy.manifest import SessionPolicy
from policy.names import CONTAINER_NAME, JOB_UID_ENV, POD_UID_ENV
from policy.opentelemetry_env import (
    DONE,
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


class Telemetry:
    """Implements :class:`job.telemetry.trace.Trace`. The run's span begins when this is made.

    Args:
        settings: what is exported.
        environment: of the process.
    """

    def __init__(self, settings: TelemetrySettings, environment: Mapping[str, str]) -> None:
        _silence()
        self._release = version("session-policy-operator")
        defaults = resource_attributes(SERVICE, self._release, CONTAINER_NAME, environment)
        # What the standard variables say of the service wins.
        self._resource = Resource.create({**defaults, **OTELResourceDetector().detect().attributes})
        self._policy: Attributes = {}
        self._stores: Mapping[Store, Attributes] = {}
        self._meters = _Meters(self._resource, settings.metrics) if settings.metrics is not None else None
        self._ended = InMemorySpanExporter()
        self._exporter = None if settings.traces is None else OTLPSpanExporter(timeout=_bounded(settings.traces))
        provider = TracerProvider(resource=self._resource, id_generator=_RunIds(environment), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._ended))
        self._tracer = provider.get_tracer(_SCOPE, self._release) if self._exporter else trace.NoOpTracer()
        self._root = self._tracer.start_span("session-policy run", context=Context(), links=_links(environment))

    @property
    def id(self) -> str | None:
        """The trace id; None where the sampler has left this run out."""
        context = self._root.get_span_context()
        return trace.format_trace_id(context.trace_id) if context.trace_flags.sampled else None

    def describe(self, policy: SessionPolicy, database_url: str | None, redis_url: str | None) -> None:
        """Names the policy and its stores."""
        self._policy = policy_attributes(policy.metadata.namespace, policy.metadata.name)
        self._stores = _stores(policy, database_url, redis_url)

    @contextmanager
    def step(self, name: str, tally: Tally) -> Iterator[None]:
        """A span, with one below it for each store that the step has waited for."""
        before = deepcopy(tally)
        span = self._tracer.start_span(name, context=trace.set_span_in_context(self._root, Context()))
        with collected_calls() as collected:
            try:
                yield
            except BaseException as error:
                _record(span, error)
                raise
            finally:
                span.set_attributes({f"session_policy.{name}": n for name, n in changes(before, tally).items()})
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

    def finish(self, report: RunReport) -> Delivery:
        """Ends the run's span and begins to send."""
        self._root.set_attributes({**self._policy, **run_attributes(report)})
        if report.outcome is Outcome.FAILED:
            self._root.set_status(trace.StatusCode.ERROR, f"{report.reason}: {report.message}")
        self._root.end()
        work = {}
        if self._exporter is not None and (spans := self._ended.get_finished_spans()):
            work["traces"] = partial(_export, self._exporter, spans)
        if self._meters is not None:
            work["metrics"] = partial(self._meters.export, report, self._policy)
        return _Sending(list(work), BoundedCalls(list(work.values()), "telemetry", EXPORT_SECONDS))


class _Sending:
    """Implements :class:`job.telemetry.trace.Delivery`."""

    def __init__(self, names: list[str], calls: BoundedCalls[bool]) -> None:
        self._names = names
        self._calls = calls

    def wait(self) -> list[str]:
        """What no collector is known to have taken in time."""
        return [
            name
            for name, taken in zip(self._names, self._calls.wait(), strict=True)
            if not has_succeeded(taken) or taken.result() is not True
        ]


class _RunIds(RandomIdGenerator):
    """The ids that the controller knows, too. On the command line, where there is no Job, all are random."""

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


class _Meters:
    """The run's counts as metrics: what was done as counters, what was found as gauges."""

    def __init__(self, resource: Resource, timeout: float) -> None:
        self._exporter = _MetricExporter(timeout=_bounded(timeout))
        reader = PeriodicExportingMetricReader(self._exporter, export_interval_millis=math.inf)
        self._provider = MeterProvider([reader], resource, shutdown_on_exit=False)

    def export(self, report: RunReport, policy: Attributes) -> bool:
        """Measures and sends. Returns whether a collector has taken it."""
        meter = self._provider.get_meter(_SCOPE)
        for name, count in counts(report.sessions, report.redis).items():
            options = {"name": f"session_policy.run.{name}", "unit": _UNITS.get(name, "{session}")}
            if name in DONE:
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
    """What the run measured of the stores: name, unit, value."""
    seen = report.vitals or Vitals()
    hourly = seen.created_per_hour
    measured = (
        ("redis.memory", "By", seen.redis_memory_bytes),
        ("redis.hit_ratio", "1", seen.redis_hit_ratio),
        ("sessions.creation_rate", "{session}/s", None if hourly is None else hourly / 3600),
        ("sessions.average_duration", "s", seen.average_session_seconds),
    )
    return [(name, unit, value) for name, unit, value in measured if value is not None]


class _MetricExporter(OTLPMetricExporter):
    """Remembers what became of its export."""

    accepted = False

    def export(self, metrics_data: MetricsData, *arguments: Any, **options: Any) -> MetricExportResult:
        result = super().export(metrics_data, *arguments, **options)
        self.accepted = result is MetricExportResult.SUCCESS
        return result


def _export(exporter: OTLPSpanExporter, spans: tuple[ReadableSpan, ...]) -> bool:
    return exporter.export(spans) is SpanExportResult.SUCCESS


def _bounded(seconds: float) -> float:
    """The exporter ends its attempts by itself when nobody waits for them any more."""
    return min(seconds, EXPORT_SECONDS)


def _stores(policy: SessionPolicy, database_url: str | None, redis_url: str | None) -> dict[Store, Attributes]:
    """The attributes of spans that wait for the stores, by the semantic conventions of databases."""
    found: dict[Store, Attributes] = {}
    redis = policy.spec.stores.redis
    # A URL that cannot be used ends the run, which says so itself.
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
    """To the reconciliation that configured this run. It is no parent: it ended long ago, in a trace of its own."""
    carrier = {"traceparent": environment.get(TRACEPARENT_ENV, "")}
    found = trace.get_current_span(TraceContextTextMapPropagator().extract(carrier, Context())).get_span_context()
    return [trace.Link(found)] if found.is_valid and found.trace_flags.sampled else []


def _record(span: trace.Span, error: BaseException) -> None:
    """Marks a span as failed. A foreign message may quote an id or a URL: only our own are told."""
    if not is_failure(error):
        return
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    told = {"exception.message": str(error)} if isinstance(error, RunError) else {}
    span.add_event(
        "exception", {"exception.type": name, **told, "exception.stacktrace": "\n".join(safe_traceback(error))}
    )
    span.set_attribute("error.type", name)
    span.set_status(trace.StatusCode.ERROR, told.get("exception.message", name))


def _silence() -> None:
    """The SDK's own lines quote endpoints and headers; a run says in one line of its own what was not delivered."""
    logger = logging.getLogger("opentelemetry")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
