"""R1.3: what the standard variables ask for; what is wrong with them fails nothing and is quoted nowhere."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.names import CRON_JOB_NAME_ENV, JOB_NAME_ENV, JOB_UID_ENV, NAMESPACE_ENV, POD_NAME_ENV
from policy.opentelemetry_env import (
    CHANGE_COUNTS,
    TelemetrySettings,
    counts,
    policy_attributes,
    resource_attributes,
    run_attributes,
)
from policy.report import Outcome, RedisCounts, RunReport, SessionCounts

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
URL = "http://collector:4318"


def read(**environment: str) -> TelemetrySettings:
    return TelemetrySettings.from_environment(environment)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {ENDPOINT: ""},
        {ENDPOINT: URL, "OTEL_SDK_DISABLED": "true"},
        {ENDPOINT: URL, "OTEL_SDK_DISABLED": "TRUE "},
        {ENDPOINT: URL, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
        {"OTEL_TRACES_SAMPLER": "nonsense", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
    ids=str,
)
def test_without_an_endpoint_or_switched_off_there_is_nothing_and_nothing_is_wrong(environment: dict[str, str]) -> None:
    settings = read(**environment)
    assert not settings
    assert settings == TelemetrySettings(None, None)


def test_one_endpoint_is_for_both_and_each_can_have_its_own() -> None:
    assert read(**{ENDPOINT: URL}) == TelemetrySettings(10.0, 10.0)
    assert read(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=URL) == TelemetrySettings(10.0, None)
    assert read(OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=URL) == TelemetrySettings(None, 10.0)
    assert read(**{ENDPOINT: URL}, OTEL_TRACES_EXPORTER="none") == TelemetrySettings(None, 10.0)
    assert read(**{ENDPOINT: URL}, OTEL_EXPORTER_OTLP_TIMEOUT="4") == TelemetrySettings(4.0, 4.0)
    own = read(**{ENDPOINT: URL}, OTEL_EXPORTER_OTLP_TIMEOUT="4", OTEL_EXPORTER_OTLP_METRICS_TIMEOUT="1.5")
    assert own == TelemetrySettings(4.0, 1.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (ENDPOINT, "secret"),
        (ENDPOINT, "collector.secret:4317"),
        (ENDPOINT, "grpc://secret:4317"),
        (ENDPOINT, "http://secret:port"),
        (ENDPOINT, "http://[secret"),
        (ENDPOINT, "http://"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc-secret"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "secret"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "nan"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "inf"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,=secret"),
        ("OTEL_TRACES_SAMPLER", "secret"),
        ("OTEL_TRACES_EXPORTER", "secret"),
    ],
)
def test_what_is_wrong_is_off_and_told_by_name_without_its_value(name: str, value: str) -> None:
    settings = read(**{ENDPOINT: URL, name: value})
    (problem,) = settings.problems
    assert settings.traces is None
    assert problem.startswith(name + " ")
    assert "secret" not in problem
    # A variable for traces says nothing of metrics.
    assert (settings.metrics is not None) is name.startswith("OTEL_TRACES_")


@pytest.mark.parametrize(
    ("ratio", "right"),
    [("0", True), ("1", True), ("0.25", True), ("", True), ("1.1", False), ("-1", False), ("x", False)],
)
@pytest.mark.parametrize("sampler", ["traceidratio", "parentbased_traceidratio"])
def test_r1_3_a_ratio_is_from_0_to_1(sampler: str, ratio: str, right: bool) -> None:
    settings = read(**{ENDPOINT: URL}, OTEL_TRACES_SAMPLER=sampler, OTEL_TRACES_SAMPLER_ARG=ratio)
    assert (settings.traces is not None, not settings.problems) == (right, right)


@given(st.dictionaries(st.sampled_from([ENDPOINT, "OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_TRACES_SAMPLER_ARG"]), st.text()))
def test_no_value_whatever_raises(environment: dict[str, str]) -> None:
    TelemetrySettings.from_environment({**environment, "OTEL_TRACES_SAMPLER": "traceidratio"})


def test_r1_3_the_resource_says_what_runs_where() -> None:
    pod = {
        NAMESPACE_ENV: "web",
        POD_NAME_ENV: "shop-1-abc",
        JOB_NAME_ENV: "shop-1",
        JOB_UID_ENV: "uid",
        CRON_JOB_NAME_ENV: "shop",
    }
    assert resource_attributes("s", "1", "c", {}) == {"service.name": "s", "service.version": "1"}
    assert resource_attributes("s", "1", "c", pod) == {
        "service.name": "s",
        "service.version": "1",
        "k8s.namespace.name": "web",
        "k8s.pod.name": "shop-1-abc",
        "k8s.job.name": "shop-1",
        "k8s.job.uid": "uid",
        "k8s.cronjob.name": "shop",
        "k8s.container.name": "c",
    }


def test_the_counts_of_a_run_become_attributes_and_every_done_one_is_a_count() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    report = RunReport(
        outcome=Outcome.DEGRADED,
        reason="DeletionsFailed",
        message="told elsewhere",
        start_time=now,
        completion_time=now,
        duration_seconds=1,
        policy_generation=3,
        sessions=SessionCounts(deleted=2, over_limit=1),
        redis=RedisCounts(ttl_added=4),
    )
    told = run_attributes(report)
    assert told["session_policy.run.outcome"] == "Degraded"
    assert told["session_policy.policy.generation"] == 3
    assert (told["session_policy.sessions.deleted"], told["session_policy.sessions.over_limit"]) == (2, 1)
    assert told["session_policy.redis.ttl_added"] == 4
    assert "told elsewhere" not in told.values()
    assert counts(report.sessions, report.redis).keys() >= CHANGE_COUNTS
    assert not any(name.startswith("redis.") for name in counts(report.sessions, None))
    assert set(policy_attributes("web", "shop").values()) == {"web", "shop"}
