"""R1.3: what runs export, and where to: the operator's configuration, as far as a policy wants it."""

from __future__ import annotations

from typing import Any

import pytest

from controller.manifests.cronjob import build_cron_job
from controller.manifests.trace_link import link, linked
from controller.settings.controller_settings import Settings
from controller.settings.environment import InvalidSettingsError
from controller.settings.job_telemetry import JobTelemetry
from controller.settings.limits import Limits, NotAllowedError
from controller.settings.pod_extras import PodExtras
from policy.manifest import InvalidPolicyError
from policy.opentelemetry_env import OPERATORS_VARIABLES, RESOURCE_FIELDS, TelemetrySettings, samples
from policy.tracing import trace_id, traceparent
from tests.unit.controller.builders import POLICY_UID, SETTINGS, typed_policy

IMAGE = {"SESSION_POLICY_JOB_IMAGE": "job:1"}
ENDPOINT = "http://collector:4318"
FULL = JobTelemetry(
    endpoint=ENDPOINT,
    headers_secret="otlp",
    headers_key="token",
    sampling_percent=25,
    resource_attributes="k8s.cluster.name=north",
    metrics=False,
)
PREFIX = "SESSION_POLICY_JOB_TELEMETRY_"


def built(configured: JobTelemetry, limits: Limits | None = None, **spec: Any) -> dict[str, Any]:
    settings = SETTINGS.model_copy(update={"job_telemetry": configured, "limits": limits or Limits()})
    return build_cron_job(typed_policy(**spec), POLICY_UID, settings)


def env(configured: JobTelemetry, **telemetry: Any) -> dict[str, Any]:
    """The container's variables that a configuration without telemetry does not have: their values or sources."""
    limits = Limits(allow_telemetry_endpoint=True)
    pod = built(configured, limits, telemetry=telemetry)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    plain = {"SESSION_POLICY", "SESSION_POLICY_JOB_UID", "DATABASE_URL"}
    found = pod["containers"][0]["env"]
    assert len({v["name"] for v in found}) == len(found)
    return {v["name"]: v.get("value") or v["valueFrom"] for v in found if v["name"] not in plain}


def problems_of(**environment: str) -> list[str]:
    with pytest.raises(InvalidSettingsError) as raised:
        Settings.from_environment(IMAGE | {PREFIX + name: value for name, value in environment.items()})
    return raised.value.problems


def test_without_an_endpoint_nothing_changes() -> None:
    assert Settings.from_environment(IMAGE).job_telemetry == JobTelemetry()
    assert env(JobTelemetry()) == {}
    assert env(JobTelemetry(sampling_percent=5, headers_secret="otlp", resource_attributes="a=b")) == {}


def test_r1_3_the_operator_s_configuration_becomes_the_standard_variables() -> None:
    read = Settings.from_environment(
        IMAGE
        | {
            PREFIX + "ENDPOINT": ENDPOINT,
            PREFIX + "HEADERS_SECRET": "otlp",
            PREFIX + "HEADERS_KEY": "token",
            PREFIX + "SAMPLING_PERCENT": "25",
            PREFIX + "RESOURCE_ATTRIBUTES": "k8s.cluster.name=north",
            PREFIX + "METRICS": "false",
        }
    ).job_telemetry
    assert read == FULL
    found = env(FULL)
    assert {name: found.pop(name)["fieldRef"]["fieldPath"] for name in list(found) if "fieldRef" in found[name]} == {
        "SESSION_POLICY_NAMESPACE": "metadata.namespace",
        "SESSION_POLICY_POD_NAME": "metadata.name",
        "SESSION_POLICY_POD_UID": "metadata.uid",
        "SESSION_POLICY_NODE_NAME": "spec.nodeName",
        "SESSION_POLICY_JOB_NAME": "metadata.labels['batch.kubernetes.io/job-name']",
    }
    assert found == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        # A Secret that is not there must not keep the container from starting.
        "OTEL_EXPORTER_OTLP_HEADERS": {"secretKeyRef": {"name": "otlp", "key": "token", "optional": True}},
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_RESOURCE_ATTRIBUTES": "k8s.cluster.name=north",
        "SESSION_POLICY_CRON_JOB_NAME": "shop",
    }


def test_the_container_is_told_every_resource_attribute_that_it_looks_for() -> None:
    told = env(JobTelemetry(endpoint=ENDPOINT)).keys() | {"SESSION_POLICY_JOB_UID"}
    assert set(RESOURCE_FIELDS.values()) <= told


def test_only_the_operator_sets_what_it_sets() -> None:
    own = {name for name in env(FULL) if name.startswith("OTEL_")} | env(FULL, enabled=False).keys()
    assert own <= OPERATORS_VARIABLES
    for name in OPERATORS_VARIABLES:
        with pytest.raises(InvalidSettingsError) as raised:
            PodExtras.read({"SESSION_POLICY_JOB_ENV": f'{{"{name}": "x"}}'})
        assert raised.value.problems == [f"SESSION_POLICY_JOB_ENV: {name!r} belongs to the operator"]


def test_r1_3_a_policy_may_be_left_out_whatever_the_operator_says() -> None:
    assert env(FULL, enabled=False) == {"OTEL_SDK_DISABLED": "true"}
    assert env(FULL, enabled=False, endpoint="http://own:4318") == {"OTEL_SDK_DISABLED": "true"}
    assert not TelemetrySettings.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, **env(FULL, enabled=False)})


@pytest.mark.parametrize(("percent", "ratio"), [(0, "0.0"), (7, "0.07"), (99, "0.99")])
def test_r1_3_a_policy_may_have_a_share_of_its_own(percent: int, ratio: str) -> None:
    assert env(FULL, samplingPercent=percent)["OTEL_TRACES_SAMPLER_ARG"] == ratio
    assert "OTEL_TRACES_SAMPLER" not in env(FULL, samplingPercent=100)


def test_r1_3_every_whole_percent_is_what_the_sampler_is_told() -> None:
    ids = [trace_id(str(n)) for n in range(1000)]
    for percent in (0, 20, 50, 80, 100):
        told = env(JobTelemetry(endpoint=ENDPOINT), samplingPercent=percent)
        taken = sum(samples(told, i) for i in ids)
        assert abs(taken - 10 * percent) < (60 if 0 < percent < 100 else 1)


def test_a_collector_of_the_policy_s_own_gets_no_header_of_the_operator_s() -> None:
    found = env(FULL, endpoint="https://own.example:4318/otlp")
    assert found["OTEL_EXPORTER_OTLP_ENDPOINT"] == "https://own.example:4318/otlp"
    assert not [name for name in found if "HEADERS" in name]


def test_a_collector_of_the_policy_s_own_has_to_be_allowed() -> None:
    with pytest.raises(NotAllowedError, match=r"spec.telemetry.endpoint: the operator's configuration does not allow"):
        built(FULL, telemetry={"endpoint": "http://own:4318"})
    built(FULL, Limits(allow_telemetry_endpoint=True), telemetry={"endpoint": "http://own:4318"})
    unset = Settings.from_environment(IMAGE).limits
    with pytest.raises(NotAllowedError):
        built(JobTelemetry(), unset, telemetry={"endpoint": "http://own:4318"})


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://own/$(DATABASE_URL)",
        "http://user:password@own",
        "http://own?token=x",
        "ftp://own",
        "http://",
        "http://own:port",
        "http://own\n",
        "http://own/\nx",
    ],
)
def test_an_endpoint_can_carry_nothing_of_the_pod_s(endpoint: str) -> None:
    with pytest.raises(InvalidPolicyError, match=r"spec.telemetry.endpoint"):
        built(FULL, Limits(allow_telemetry_endpoint=True), telemetry={"endpoint": endpoint})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENDPOINT", "canary:4318"),
        ("ENDPOINT", "grpc://canary"),
        ("HEADERS_SECRET", "Can_ary"),
        ("HEADERS_KEY", "can ary"),
        ("SAMPLING_PERCENT", "101"),
        ("SAMPLING_PERCENT", "-1"),
        ("SAMPLING_PERCENT", "0.5"),
        ("METRICS", "canary"),
    ],
)
def test_what_would_fail_every_run_is_refused_at_the_start(name: str, value: str) -> None:
    (problem,) = problems_of(**{name: value})
    assert problem.startswith(PREFIX + name)
    assert "canary" not in problem


def test_r1_3_the_link_is_there_where_runs_are_traced() -> None:
    cron_job = built(FULL)
    context = traceparent(cron_job)
    assert link(linked(cron_job, context)) == context
    assert linked(cron_job, None) == cron_job
    for untraced in (built(JobTelemetry()), built(FULL, telemetry={"enabled": False})):
        assert linked(untraced, context) == untraced
    assert link(cron_job) is None  # the manifest itself stays as it was


def test_r1_3_the_link_changes_with_the_template_only() -> None:
    assert traceparent(built(FULL)) == traceparent(built(FULL))
    others = [built(FULL, suspend=True), built(FULL.model_copy(update={"sampling_percent": 26}))]
    assert len({traceparent(made) for made in (built(FULL), *others)}) == 3
