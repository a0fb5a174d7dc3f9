"""The chart's telemetry values, as controller and runs get them."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.resources import OTELResourceDetector

from controller.settings.controller_settings import Settings
from controller.settings.job_telemetry import JobTelemetry
from policy.opentelemetry_env import RESOURCE_FIELDS, TelemetrySettings
from tests.support.chart import container, environment
from tools.chart_lint import EVERYTHING

ENDPOINT = "http://collector.observability:4318"


def telemetry(**values: Any) -> dict[str, Any]:
    return {"telemetry": {"otlp": {"endpoint": ENDPOINT}} | values}


def sources(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry["valueFrom"] for entry in container(values)["env"] if "valueFrom" in entry}


def sources_as_text(values: dict[str, Any]) -> dict[str, str]:
    return dict.fromkeys(sources(values), "x")


def test_it_is_off_by_default() -> None:
    assert not [name for name in environment() if name.startswith("OTEL_")]
    assert Settings.from_environment(environment() | sources_as_text({})).job_telemetry == JobTelemetry()
    assert not TelemetrySettings.from_environment(environment())


def test_r1_3_one_endpoint_is_enough_for_both() -> None:
    told = environment(telemetry())
    assert TelemetrySettings.from_environment(told).problems == ()
    assert TelemetrySettings.from_environment(told).traces
    assert Settings.from_environment(told | sources_as_text(telemetry())).job_telemetry == JobTelemetry(
        endpoint=ENDPOINT
    )


def test_r1_3_the_controller_knows_where_it_runs() -> None:
    found = {name: source["fieldRef"]["fieldPath"] for name, source in sources(telemetry()).items()}
    assert found["SESSION_POLICY_POD_UID"] == "metadata.uid"
    assert found["SESSION_POLICY_NAMESPACE"] == "metadata.namespace"
    assert found["SESSION_POLICY_NODE_NAME"] == "spec.nodeName"
    of_pods = {name for attribute, name in RESOURCE_FIELDS.items() if "job" not in attribute}
    assert of_pods <= found.keys()


@pytest.mark.parametrize("off", ["controller", "jobs"])
def test_each_side_can_be_switched_off(off: str) -> None:
    told = environment(telemetry(**{off: {"enabled": False}}))
    assert ("OTEL_EXPORTER_OTLP_ENDPOINT" in told) is (off == "jobs")
    assert ("SESSION_POLICY_JOB_TELEMETRY_ENDPOINT" in told) is (off == "controller")
    assert any(name.startswith("SESSION_POLICY_JOB_TELEMETRY") for name in told) is (off == "controller")


def test_r1_3_both_sides_are_told_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    told, values = environment(EVERYTHING), EVERYTHING["telemetry"]
    jobs = Settings.from_environment(told | sources_as_text(EVERYTHING)).job_telemetry
    assert jobs.endpoint == told["OTEL_EXPORTER_OTLP_ENDPOINT"] == values["otlp"]["endpoint"]
    assert jobs.sampling_percent / 100 == float(told["OTEL_TRACES_SAMPLER_ARG"]) == 0.07
    assert told["OTEL_TRACES_SAMPLER"] == "parentbased_traceidratio"
    assert (jobs.headers_secret, jobs.headers_key, jobs.metrics) == ("otlp", "token", False)
    reference = sources(EVERYTHING)["OTEL_EXPORTER_OTLP_HEADERS"]["secretKeyRef"]
    assert reference == {"name": "otlp", "key": "token", "optional": True}
    assert jobs.resource_attributes == told["OTEL_RESOURCE_ATTRIBUTES"]
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", jobs.resource_attributes)
    assert OTELResourceDetector().detect().attributes == values["resourceAttributes"]


@pytest.mark.parametrize("percent", [0, 1, 29, 99])
def test_every_share_is_a_ratio(percent: int) -> None:
    told = environment(telemetry(samplingPercent=percent))
    assert float(told["OTEL_TRACES_SAMPLER_ARG"]) == percent / 100
