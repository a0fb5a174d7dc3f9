"""A collector as OTLP/HTTP has one: takes what is exported and decodes it, refuses it, or never answers."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.support.http_server import QuietHandler, serve

T = TypeVar("T", bound=Message)

Value = str | int | float | bool


@dataclass(frozen=True)
class Span:
    """A span as it came over the wire, with the resource it came from."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    status: str
    status_message: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    events: list[tuple[str, Mapping[str, Value]]]
    links: list[tuple[str, str]]
    resource: Mapping[str, Value]

    @property
    def service(self) -> str:
        return str(self.resource["service.name"])


@dataclass(frozen=True)
class Point:
    """A data point of a metric."""

    name: str
    unit: str
    kind: str
    value: float
    attributes: Mapping[str, Value]
    resource: Mapping[str, Value]


@dataclass
class Collector:
    """What it has received; and how it behaves."""

    endpoint: str
    status: int = 200
    hangs: bool = False
    released: threading.Event = field(default_factory=threading.Event)
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    """Somebody has connected and sent something."""

    @property
    def environment(self) -> dict[str, str]:
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint}

    @property
    def spans(self) -> list[Span]:
        return [
            _span(span, _attributes(resource.resource.attributes))
            for path, body in self.bodies
            if path == "/v1/traces"
            for resource in _decoded(ExportTraceServiceRequest(), body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def points(self) -> list[Point]:
        return [
            _point(metric, point, _attributes(resource.resource.attributes))
            for path, body in self.bodies
            if path == "/v1/metrics"
            for resource in _decoded(ExportMetricsServiceRequest(), body).resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in getattr(metric, str(metric.WhichOneof("data"))).data_points
        ]

    def named(self, name: str) -> Span:
        (span,) = [s for s in self.spans if s.name == name]
        return span

    def below(self, parent: Span) -> list[Span]:
        return [s for s in self.spans if s.parent_id == parent.span_id]


def _decoded(message: T, body: bytes) -> T:
    message.ParseFromString(body)
    return message


def _span(span: WireSpan, resource: Mapping[str, Value]) -> Span:
    return Span(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=WireSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        status=Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        status_message=span.status.message,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        events=[(event.name, _attributes(event.attributes)) for event in span.events],
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        resource=resource,
    )


def _point(metric: Any, point: Any, resource: Mapping[str, Value]) -> Point:
    kind = metric.WhichOneof("data")
    value = getattr(point, point.WhichOneof("value"))
    return Point(metric.name, metric.unit, kind, value, _attributes(point.attributes), resource)


def _attributes(pairs: Any) -> dict[str, Value]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector that is up while the block runs."""

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            body = self.body()
            one.headers.append({name.lower(): value for name, value in self.headers.items()})
            one.asked.set()
            if one.hangs:
                self.drip(one.released)
                return
            if one.status == HTTPStatus.OK:
                packed = self.headers.get("Content-Encoding") == "gzip"
                one.bodies.append((self.path, gzip.decompress(body) if packed else body))
            self.send_response(one.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with serve(Handler) as port:
        one = Collector(f"http://127.0.0.1:{port}")
        try:
            yield one
        finally:
            one.released.set()
