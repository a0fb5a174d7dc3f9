"""R1.3: one trace per run, as it arrives at a collector that decodes the wire format."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controller.tracing.interface import NoTracing as UntracedController
from controller.tracing.interface import Tracing, open_tracing
from job.demo.servers import EmbeddedPostgres, EmbeddedRedis
from job.telemetry.opentelemetry_export import OpenTelemetryTrace
from policy.manifest import parse_policy
from policy.names import (
    ALERT_OPERATIONS_URLS_ENV,
    CRON_JOB_NAME_ENV,
    JOB_NAME_ENV,
    JOB_UID_ENV,
    NAMESPACE_ENV,
    NODE_NAME_ENV,
    POD_NAME_ENV,
    POD_UID_ENV,
)
from policy.opentelemetry_env import EXPORT_SECONDS, TRACEPARENT_ENV, TelemetrySettings, samples
from policy.report import Outcome, RunReport
from policy.status import RunRecord, Trigger
from policy.tracing import root_span_id, trace_id
from tests.stores.test_whole_run import CANARY, POLICY, fill
from tests.support.otlp import Collector, Span, collector
from tests.support.patience import PATIENCE_SECONDS
from tests.support.runs import EXPORT_SECONDS_ENV, Command, Finished, Log, command, manifest
from tests.support.session_stores import HOUR, SessionStores
from tests.support.webhooks import web_hook

JOB, POD = "0b9e1d9c-6c1c-4f0a-9b52-8a0d3c1f7e42", "5f0c8a34-90b1-4c0e-8f43-2d6c1f1f7b11"
IN_A_POD = {
    JOB_UID_ENV: JOB,
    POD_UID_ENV: POD,
    POD_NAME_ENV: "shop-29000000-abcde",
    NAMESPACE_ENV: "web",
    NODE_NAME_ENV: "node-1",
    JOB_NAME_ENV: "shop-29000000",
    CRON_JOB_NAME_ENV: "shop",
}
RUN = "session-policy run"
CRON_JOB = {"spec": {"schedule": "1 * * * *"}}
SHOP = parse_policy({**manifest(), "metadata": {"name": "shop", "namespace": "web", "generation": 3}})
RECONCILE = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
TRACEPARENT = f"00-{RECONCILE[0]}-{RECONCILE[1]}-01"
STEPS = [
    "initialise",
    "overview",
    "vitals",
    "assess abnormal",
    "assess",
    "expired",
    "active",
    "abnormal",
    "duplicates",
    "concurrency",
    "count",
    "sync",
    "settings",
    "statistics",
]
# 503 and 429 are tried again, 400 is not.
TROUBLES = ["hanging", "absent", "unknown", "400", "429", "503"]
NOBODY = {"absent": "http://127.0.0.1:9", "unknown": "http://collector.invalid:4318"}


@pytest.fixture
def otlp() -> Iterator[Collector]:
    with collector() as one:
        yield one


@pytest.fixture
def sqlite(sqlite_url: str) -> Iterator[SessionStores]:
    made = SessionStores(sqlite_url)
    made.add_many(((f"due-{n}", "u") for n in range(3)), used=HOUR)
    made.add("live")
    yield made
    made.close()


def traced(
    directory: Path,
    stores: SessionStores,
    environment: Mapping[str, str],
    document: Mapping[str, Any] | None = None,
) -> Finished:
    document = manifest(redis=stores.redis_url is not None) if document is None else document
    # A collector that works answers in the end, however slow the machine is.
    told = {**IN_A_POD, EXPORT_SECONDS_ENV: "100", "OTEL_EXPORTER_OTLP_TIMEOUT": "100", **environment}
    return command(directory, document, stores.database_url, stores.redis_url, environment=told)


def report_of(done: Finished) -> RunReport:
    """The report that the controller gets: standard output's, and perhaps the trace's id."""
    report = RunReport.model_validate_json(done.termination_message, strict=True, by_alias=True, by_name=False)
    printed = RunReport.model_validate_json(done.stdout, strict=True, by_alias=True, by_name=False)
    assert report.model_copy(update={"trace_id": None}) == printed
    return report


def lines(done: Finished) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stderr.splitlines()]


def undelivered(done: Finished) -> list[dict[str, Any]]:
    return [line for line in lines(done) if line["event"] == "telemetry export failed"]


def trouble(one: Collector, kind: str) -> dict[str, str]:
    """Has the collector behave badly. Returns the environment of whoever exports to it."""
    one.hangs = kind == "hanging"
    one.status = int(kind) if kind.isdigit() else 200
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": NOBODY.get(kind, one.endpoint)}


# --- the trace of a run ----------------------------------------------------------------------------------------------


def test_r1_3_a_run_is_one_trace_with_a_span_for_each_step_and_store(
    postgres_and_redis: SessionStores, otlp: Collector, tmp_path: Path
) -> None:
    fill(postgres_and_redis)
    done = traced(tmp_path, postgres_and_redis, {**otlp.environment, TRACEPARENT_ENV: TRACEPARENT}, manifest(**POLICY))
    assert done.exit_code == 0, done
    report = report_of(done)
    assert report.trace_id == trace_id(JOB)
    assert {line["trace_id"] for line in lines(done)} == {report.trace_id}
    assert {span.trace_id for span in otlp.spans} == {report.trace_id}
    assert len({span.span_id for span in otlp.spans}) == len(otlp.spans)
    assert {span.status for span in otlp.spans} == {"UNSET"}
    assert not any(span.events for span in otlp.spans)

    root = otlp.named(RUN)
    assert (root.span_id, root.parent_id, root.links) == (root_span_id(JOB, POD), "", [RECONCILE])
    steps = sorted(otlp.below(root), key=lambda span: span.start_ns)
    assert [step.name for step in steps] == STEPS
    for step in steps:
        assert root.start_ns <= step.start_ns <= step.end_ns <= root.end_ns
    check_stores(otlp, steps, postgres_and_redis)
    check_counts(root, steps, report)

    assert root.service == "session-policy-job"
    pod = {k: v for k, v in root.resource.items() if k.startswith("k8s.")}
    assert pod == {
        "k8s.namespace.name": "web",
        "k8s.pod.name": "shop-29000000-abcde",
        "k8s.pod.uid": POD,
        "k8s.node.name": "node-1",
        "k8s.job.name": "shop-29000000",
        "k8s.job.uid": JOB,
        "k8s.cronjob.name": "shop",
        "k8s.container.name": "session-policy",
    }


def check_stores(otlp: Collector, steps: list[Span], stores: SessionStores) -> None:
    """Below each step, a span for each store that it waited for."""
    below = {step.name: {span.name: span for span in otlp.below(step)} for step in steps}
    both = {"initialise", "assess abnormal", "expired", "abnormal", "duplicates", "concurrency", "sync"}
    for step in steps:
        assert below[step.name].keys() == {"postgresql", "redis"} if step.name in both else {"postgresql"}, step.name
        for system, span in below[step.name].items():
            assert (span.kind, span.attributes["db.system.name"]) == ("CLIENT", system)
            assert span.attributes["server.address"] == "127.0.0.1"
            url = str(stores.redis_url) if system == "redis" else stores.database_url
            assert f":{span.attributes['server.port']}/" in url
            assert int(span.attributes["session_policy.store.calls"]) > 0
            assert span.attributes["session_policy.store.failed_calls"] == 0
            assert step.start_ns <= span.start_ns <= span.end_ns <= step.end_ns


def check_counts(root: Span, steps: list[Span], report: RunReport) -> None:
    """The steps' counts add up to the run's, and those are the report's."""
    assert (root.attributes["session_policy.run.outcome"], root.attributes["session_policy.policy.name"]) == (
        "Succeeded",
        "shop",
    )
    counts = report.sessions.model_dump()
    assert {name: root.attributes[f"session_policy.sessions.{name}"] for name in counts} == counts
    deleted = "session_policy.sessions.deleted"
    by_step = {step.name: step.attributes[deleted] for step in steps if deleted in step.attributes}
    assert by_step == {"expired": 3, "abnormal": 5, "duplicates": 2, "concurrency": 6}
    assert steps[STEPS.index("assess")].attributes["session_policy.sessions.expired"] == 3


def test_r1_3_attempts_of_one_job_share_the_trace_and_each_has_its_own_span(
    sqlite: SessionStores, otlp: Collector, tmp_path: Path
) -> None:
    for pod in ("pod-1", "pod-2"):
        done = traced(tmp_path, sqlite, {**otlp.environment, POD_UID_ENV: pod})
        assert report_of(done).trace_id == trace_id(JOB)
    roots = [span for span in otlp.spans if not span.parent_id]
    assert [span.span_id for span in roots] == [root_span_id(JOB, "pod-1"), root_span_id(JOB, "pod-2")]
    assert {span.trace_id for span in otlp.spans} == {trace_id(JOB)}


def test_r1_5_on_the_command_line_each_run_has_a_trace_of_its_own(
    sqlite: SessionStores, otlp: Collector, tmp_path: Path
) -> None:
    nowhere = dict.fromkeys(IN_A_POD, "")
    told = {report_of(traced(tmp_path, sqlite, {**otlp.environment, **nowhere})).trace_id for _ in range(2)}
    assert {span.trace_id for span in otlp.spans if not span.parent_id} == told
    assert len(told) == 2


@pytest.mark.representative(value=["nonsense"])
@pytest.mark.parametrize(
    "value", ["", "nonsense", "00-0-0-01", TRACEPARENT[:-2] + "00", "00-" + "0" * 32 + TRACEPARENT[35:]]
)
def test_r1_3_a_traceparent_that_leads_nowhere_is_ignored(
    sqlite: SessionStores, otlp: Collector, tmp_path: Path, value: str
) -> None:
    done = traced(tmp_path, sqlite, {**otlp.environment, TRACEPARENT_ENV: value})
    assert done.exit_code == 0
    root = otlp.named(RUN)
    assert (root.trace_id, root.parent_id, root.links) == (trace_id(JOB), "", [])


@pytest.mark.representative(down=["postgresql"])
@pytest.mark.parametrize("down", ["postgresql", "redis"])
def test_r1_3_where_a_store_is_down_the_step_that_needed_it_says_so(
    own_postgres: EmbeddedPostgres,
    own_postgres_url: str,
    own_redis: EmbeddedRedis,
    otlp: Collector,
    tmp_path: Path,
    down: str,
) -> None:
    stores = SessionStores(own_postgres_url, own_redis.url)
    stores.close()
    (own_postgres if down == "postgresql" else own_redis).stop()
    done = traced(tmp_path, stores, otlp.environment)
    assert done.exit_code == 1
    report = report_of(done)
    reason = "DatabaseUnavailable" if down == "postgresql" else "RedisUnavailable"
    assert (report.reason, report.trace_id) == (reason, trace_id(JOB))

    root = otlp.named(RUN)
    assert (root.status, root.status_message) == ("ERROR", f"{reason}: {report.message}")
    assert root.attributes["session_policy.run.outcome"] == "Failed"
    (step,) = otlp.below(root)
    assert (step.name, step.status, step.status_message) == ("initialise", "ERROR", report.message)
    ((event, exception),) = step.events
    assert (event, exception["exception.message"]) == ("exception", report.message)
    assert exception["exception.type"] == step.attributes["error.type"] == f"stores.model.errors.{reason}Error"
    assert "job/steps/initialise.py" in str(exception["exception.stacktrace"])
    stores_asked = {span.name: span for span in otlp.below(step)}
    assert stores_asked[down].status == "ERROR"
    assert stores_asked[down].attributes["session_policy.store.failed_calls"] == 3  # and the policy says two more
    assert down == "postgresql" or stores_asked["postgresql"].status == "UNSET"


def test_a_run_that_finds_another_at_work_has_no_error_in_its_trace(
    postgres: SessionStores, otlp: Collector, tmp_path: Path
) -> None:
    from job.steps.initialise import Urls, initialise
    from stores.waiting.clock import RunClock
    from tests.support.runs import policy

    held = initialise(policy().spec, Urls(postgres.database_url), RunClock(600), Log())
    try:
        done = traced(tmp_path, postgres, otlp.environment)
    finally:
        held.connection.close()
    assert report_of(done).outcome is Outcome.SKIPPED
    assert {span.name for span in otlp.spans} == {RUN, "initialise", "postgresql"}
    assert {span.status for span in otlp.spans} == {"UNSET"}


def test_a_policy_that_cannot_be_read_is_traced_as_a_failed_run(
    sqlite: SessionStores, otlp: Collector, tmp_path: Path
) -> None:
    done = traced(tmp_path, sqlite, otlp.environment, {**manifest(), "kind": "Other"})
    assert (done.exit_code, report_of(done).trace_id) == (2, trace_id(JOB))
    (root,) = otlp.spans
    assert (root.name, root.status) == (RUN, "ERROR")


def test_r1_3_an_alert_names_the_trace(otlp: Collector, tmp_path: Path) -> None:
    nowhere = SessionStores(f"sqlite:///{tmp_path / 'there'}")
    nowhere.database_url = f"sqlite:///{tmp_path / 'not-there'}"
    with web_hook() as hook:
        done = traced(tmp_path, nowhere, {**otlp.environment, ALERT_OPERATIONS_URLS_ENV: hook.url})
        nowhere.close()
        assert done.exit_code == 2
        assert f"Trace: {trace_id(JOB)}" in hook.received[0]["message"]


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_the_counts_of_a_run_are_metrics(postgres_and_redis: SessionStores, otlp: Collector, tmp_path: Path) -> None:
    fill(postgres_and_redis)
    report = report_of(traced(tmp_path, postgres_and_redis, otlp.environment, manifest(**POLICY)))
    points = {point.name.removeprefix("session_policy.run."): point for point in otlp.points}
    assert len(points) == len(otlp.points)
    for store, counts in (("sessions", report.sessions), ("redis", report.redis)):
        assert counts is not None
        for name, count in counts:
            assert points[f"{store}.{name}"].value == count
    assert (points["sessions.deleted"].kind, points["sessions.active"].kind) == ("sum", "gauge")
    assert (points["duration"].value, points["duration"].unit) == (report.duration_seconds, "s")
    assert points["completed"].attributes["session_policy.run.outcome"] == "Succeeded"
    assert report.vitals is not None
    assert (points["redis.memory"].value, points["redis.memory"].unit) == (report.vitals.redis_memory_bytes, "By")
    assert points["sessions.average_duration"].value == report.vitals.average_session_seconds
    for point in otlp.points:
        assert point.attributes["session_policy.policy.name"] == "shop"
        assert point.resource["k8s.cronjob.name"] == "shop"


@pytest.mark.representative(off=["METRICS"])
@pytest.mark.parametrize(("off", "left"), [("TRACES", "/v1/metrics"), ("METRICS", "/v1/traces")])
def test_traces_and_metrics_can_be_switched_off_alone(
    sqlite: SessionStores, otlp: Collector, tmp_path: Path, off: str, left: str
) -> None:
    done = traced(tmp_path, sqlite, {**otlp.environment, f"OTEL_{off}_EXPORTER": "none"})
    assert [path for path, _ in otlp.bodies] == [left]
    assert report_of(done).trace_id == (None if off == "TRACES" else trace_id(JOB))
    assert undelivered(done) == []


# --- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["traceidratio", "parentbased_traceidratio"])
def test_r1_3_a_ratio_takes_its_share_of_runs_and_controller_and_job_agree_on_which(
    monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_TRACES_SAMPLER": sampler,
        "OTEL_TRACES_SAMPLER_ARG": "0.4",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = TelemetrySettings(traces=1.0, metrics=None)
    jobs = [str(uuid.UUID(int=n, version=4)) for n in range(200)]
    taken = {uid for uid in jobs if OpenTelemetryTrace(settings, {**environment, JOB_UID_ENV: uid}).id}
    assert taken == {uid for uid in jobs if samples(environment, trace_id(uid))}
    assert 0.3 < len(taken) / len(jobs) < 0.5


@pytest.mark.representative(sampler=["traceidratio"])
@pytest.mark.parametrize("sampler", ["traceidratio", "parentbased_traceidratio", "always_off"])
def test_r1_3_a_run_that_is_not_sampled_names_no_trace(
    sqlite: SessionStores, otlp: Collector, tmp_path: Path, sampler: str
) -> None:
    settings = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "0"}
    done = traced(tmp_path, sqlite, {**otlp.environment, **settings, TRACEPARENT_ENV: TRACEPARENT})
    assert otlp.spans == []
    assert otlp.points  # metrics are not sampled
    assert report_of(done).trace_id is None
    assert undelivered(done) == []
    assert not any("trace_id" in line for line in lines(done))


_IMPORTED = """
import atexit, sys
import job.cli.main
atexit.register(lambda: print(sum(name.startswith("opentelemetry") for name in sys.modules)))
job.cli.main.main(["run", *sys.argv[1:]])
"""


def test_a_run_without_an_endpoint_imports_no_opentelemetry(
    sqlite: SessionStores, otlp: Collector, tmp_path: Path
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(json.dumps(manifest()))
    command = [sys.executable, "-c", _IMPORTED, "-f", str(path), "--database-url", sqlite.database_url]
    imported = []
    for environment in ({}, otlp.environment):
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=True)
        imported.append(int(done.stdout.splitlines()[-1]))
    assert imported[0] == 0
    assert imported[1] > 0


def test_the_standard_variables_name_the_service_and_reach_the_exporter(
    sqlite: SessionStores, otlp: Collector, tmp_path: Path
) -> None:
    standard = {
        "OTEL_SERVICE_NAME": "my-cleaner",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=prod,k8s.cluster.name=north",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20token",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }
    assert report_of(traced(tmp_path, sqlite, {**otlp.environment, **standard})).trace_id == trace_id(JOB)
    resource = otlp.named(RUN).resource
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("my-cleaner", "prod")
    assert (resource["k8s.cluster.name"], resource["k8s.pod.name"]) == ("north", "shop-29000000-abcde")
    assert {(h["authorization"], h["content-encoding"]) for h in otlp.headers} == {("Bearer token", "gzip")}


@pytest.mark.representative(wrong=[{"OTEL_EXPORTER_OTLP_ENDPOINT": "canary-no-url"}])
@pytest.mark.parametrize(
    "wrong",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "canary-no-url"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"OTEL_TRACES_SAMPLER": "canary", "OTEL_METRICS_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "canary-without-a-name"},
        {"OTEL_EXPORTER_OTLP_TIMEOUT": "canary"},
    ],
    ids=str,
)
def test_a_bad_configuration_fails_no_run_and_is_one_warning(
    sqlite: SessionStores, otlp: Collector, tmp_path: Path, wrong: Mapping[str, str]
) -> None:
    done = traced(tmp_path, sqlite, {**otlp.environment, **wrong})
    assert (done.exit_code, report_of(done).outcome, report_of(done).trace_id) == (0, Outcome.SUCCEEDED, None)
    (line,) = [line for line in lines(done) if "telemetry" in line["event"]]
    assert (line["level"], line["event"]) == ("warning", "telemetry disabled")
    assert next(iter(wrong)) in line["because"]
    assert "canary" not in done.everything
    assert otlp.bodies == []


def test_a_certificate_that_is_not_there_fails_no_run(sqlite: SessionStores, tmp_path: Path) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "canary.pem"),
        EXPORT_SECONDS_ENV: "2",
    }
    done = traced(tmp_path, sqlite, environment)
    assert (done.exit_code, report_of(done).trace_id) == (0, None)
    assert len(undelivered(done)) == 1
    assert "canary" not in done.everything


# --- a collector that does not work ----------------------------------------------------------------------------------


@pytest.mark.representative(kind=["hanging"])
@pytest.mark.parametrize("kind", TROUBLES)
def test_r1_3_a_collector_that_does_not_work_changes_no_run_and_the_report_names_no_trace(
    sqlite: SessionStores, otlp: Collector, tmp_path: Path, kind: str
) -> None:
    environment = {**IN_A_POD, **trouble(otlp, kind)}
    started = Command(tmp_path, manifest(), sqlite.database_url, environment=environment)
    assert started.process.stdout
    line = started.process.stdout.readline()
    # The report is there before anything is sent; a collector that hangs hangs for good.
    reported = time.monotonic()
    done = started.wait()
    assert time.monotonic() - reported < EXPORT_SECONDS + 100
    assert done.exit_code == 0, done
    assert done.termination_message == line.strip()
    report = RunReport.model_validate_json(line, by_alias=True, by_name=False)
    assert (report.outcome, report.sessions.deleted, report.trace_id) == (Outcome.SUCCEEDED, 3, None)
    (warning,) = undelivered(done)
    assert warning["lost"] == ["traces", "metrics"]
    # One line of ours, and none of the SDK's own.
    assert all(isinstance(entry, dict) for entry in lines(done))


def test_r1_3_a_run_that_fails_keeps_its_exit_code_when_the_collector_hangs(otlp: Collector, tmp_path: Path) -> None:
    otlp.hangs = True
    nowhere = "postgresql://nobody@127.0.0.1:9/none"
    done = command(tmp_path, manifest(), nowhere, environment={**IN_A_POD, **otlp.environment})
    assert (done.exit_code, report_of(done).reason) == (1, "DatabaseUnavailable")


def test_r1_3_sigterm_while_the_collector_hangs_ends_the_run_in_good_order(
    sqlite: SessionStores, otlp: Collector, tmp_path: Path
) -> None:
    otlp.hangs = True
    started = Command(tmp_path, manifest(), sqlite.database_url, environment={**IN_A_POD, **otlp.environment})
    assert otlp.asked.wait(PATIENCE_SECONDS)
    started.process.send_signal(signal.SIGTERM)
    done = started.wait()
    assert (done.exit_code, report_of(done).outcome) == (0, Outcome.SUCCEEDED)


# --- secrets ---------------------------------------------------------------------------------------------------------


def check_no_secrets(done: Finished, otlp: Collector) -> None:
    assert otlp.bodies
    for _, body in otlp.bodies:
        assert CANARY.encode() not in body
    assert CANARY not in done.everything


def test_no_id_user_or_credential_is_in_any_span_or_metric(
    postgres_and_redis: SessionStores, otlp: Collector, tmp_path: Path
) -> None:
    fill(postgres_and_redis)
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization={CANARY}"}
    done = traced(tmp_path, postgres_and_redis, {**otlp.environment, **headers}, manifest(**POLICY))
    assert report_of(done).trace_id
    assert {h["authorization"] for h in otlp.headers} == {CANARY}
    check_no_secrets(done, otlp)


@pytest.mark.representative(state=["XX000"])
@pytest.mark.parametrize("state", ["XX000", "42501", "08006"])
def test_no_driver_message_that_quotes_data_is_in_any_span(
    postgres: SessionStores, otlp: Collector, tmp_path: Path, state: str
) -> None:
    postgres.add_many(((f"{CANARY}-{n}", f"{CANARY}-user") for n in range(3)), used=HOUR)
    postgres.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no: %% of %%', OLD.session_id,"
        f" OLD.user_id USING ERRCODE = '{state}', DETAIL = OLD.session_id, HINT = OLD.user_id; END $$",
        "CREATE TRIGGER refuse BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    done = traced(tmp_path, postgres, otlp.environment)
    assert done.exit_code != 0
    step = otlp.named("expired")
    assert step.status == "ERROR"
    assert step.events
    check_no_secrets(done, otlp)


def test_no_part_of_a_url_but_its_host_is_in_any_span(otlp: Collector, tmp_path: Path) -> None:
    nowhere = f"postgresql://{CANARY}:{CANARY}-password@127.0.0.1:9/{CANARY}?application_name={CANARY}"
    redis = f"redis://{CANARY}:{CANARY}@127.0.0.1:9/0"
    done = command(tmp_path, manifest(redis=True), nowhere, redis, environment={**IN_A_POD, **otlp.environment})
    assert done.exit_code == 1
    (store,) = [span for span in otlp.spans if span.kind == "CLIENT"]
    assert store.attributes["server.port"] == 9
    check_no_secrets(done, otlp)


# --- the controller's part -------------------------------------------------------------------------------------------


@pytest.fixture
def controller(otlp: Collector) -> Iterator[Tracing]:
    opened = open_tracing({**otlp.environment, POD_NAME_ENV: "operator-0"}, Log())
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _environment_of_the_exporter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK reads the process's own variables."""
    if "controller" in request.fixturenames:
        one: Collector = request.getfixturevalue("otlp")
        for name, value in one.environment.items():
            monkeypatch.setenv(name, value)


def record(report: RunReport | None = None, **fields: Any) -> RunRecord:
    """As the controller records a finished run."""
    said: dict[str, Any] = dict(report) if report else {}
    started = datetime(2026, 3, 1, 10, 50, tzinfo=UTC)
    unreported = {
        "outcome": Outcome.FAILED,
        "reason": "OOMKilled",
        "message": "the container ran out of memory",
        "start_time": started,
        "completion_time": started.replace(minute=52),
        "duration_seconds": 120,
    }
    told = {**unreported, **said, "job_name": "shop-29000000", "job_uid": JOB, "trigger": Trigger.SCHEDULE, **fields}
    return RunRecord(**told)


def test_r1_3_controller_and_job_write_one_trace_and_the_run_links_to_its_reconcile(
    sqlite: SessionStores, otlp: Collector, controller: Tracing, tmp_path: Path
) -> None:
    traceparent = controller.traceparent(CRON_JOB)
    assert traceparent
    controller.record_reconciliation(SHOP, traceparent, time.time_ns())
    done = traced(tmp_path, sqlite, {**otlp.environment, TRACEPARENT_ENV: traceparent})
    report = report_of(done)
    controller.record_outcome("web", "shop", record(report), pod_uid=POD, reported=True)
    controller.close()

    reconcile, root, recorded = (otlp.named(name) for name in ("reconcile", RUN, "record outcome"))
    assert reconcile.trace_id != root.trace_id
    assert root.links == [(reconcile.trace_id, reconcile.span_id)]
    assert reconcile.attributes["session_policy.policy.generation"] == 3
    assert (recorded.trace_id, recorded.parent_id) == (root.trace_id, root.span_id)
    assert (recorded.service, root.service) == ("session-policy-controller", "session-policy-job")
    assert recorded.resource["k8s.pod.name"] == "operator-0"
    assert recorded.attributes["session_policy.sessions.deleted"] == 3
    assert (recorded.attributes["k8s.job.name"], recorded.status) == ("shop-29000000", "UNSET")


def test_r1_3_the_trace_of_a_run_that_was_killed_is_written_by_the_controller(
    otlp: Collector, controller: Tracing
) -> None:
    killed = record(trace_id=trace_id(JOB))
    controller.record_outcome("web", "shop", killed, pod_uid=POD, reported=False)
    controller.close()
    root, recorded = otlp.named(RUN), otlp.named("record outcome")
    assert (root.trace_id, root.span_id, root.parent_id) == (trace_id(JOB), root_span_id(JOB, POD), "")
    assert (recorded.trace_id, recorded.parent_id) == (root.trace_id, root.span_id)
    assert root.attributes["session_policy.run.reported"] == 0
    assert (root.end_ns - root.start_ns) == 120 * 10**9
    for span in (root, recorded):
        assert (span.status, span.status_message) == ("ERROR", "OOMKilled: the container ran out of memory")


def test_r1_3_a_run_without_a_trace_gets_none(otlp: Collector, controller: Tracing) -> None:
    controller.record_outcome("web", "shop", record(), pod_uid=POD, reported=True)
    controller.close()
    assert otlp.bodies == []


def test_an_error_of_a_reconcile_is_recorded_without_its_text(otlp: Collector, controller: Tracing) -> None:
    traceparent = controller.traceparent(CRON_JOB)
    assert traceparent
    controller.record_reconciliation(SHOP, traceparent, time.time_ns(), error=ValueError("canary"))
    controller.close()
    span = otlp.named("reconcile")
    assert (span.status, span.attributes["error.type"]) == ("ERROR", "builtins.ValueError")
    assert all(b"canary" not in body for _, body in otlp.bodies)


def test_the_same_manifest_has_the_same_context_and_no_two_spans_an_id(otlp: Collector, controller: Tracing) -> None:
    traceparent = controller.traceparent(CRON_JOB)
    assert traceparent == controller.traceparent(json.loads(json.dumps(CRON_JOB)))
    assert traceparent != controller.traceparent({"spec": {"schedule": "2 * * * *"}})
    assert traceparent
    controller.record_reconciliation(SHOP, traceparent, time.time_ns(), error=ValueError())
    controller.record_reconciliation(SHOP, traceparent, time.time_ns())
    controller.record_reconciliation(SHOP, traceparent, time.time_ns(), is_repair=True)
    controller.close()
    failed, made, repaired = otlp.spans
    assert {span.trace_id for span in otlp.spans} == {traceparent.split("-")[1]}
    assert made.span_id == traceparent.split("-")[2]
    assert (failed.parent_id, made.parent_id, repaired.parent_id) == ("", "", made.span_id)
    assert len({span.span_id for span in otlp.spans}) == 3


def test_a_controller_without_an_endpoint_traces_nothing_and_imports_nothing() -> None:
    log = Log()
    assert isinstance(open_tracing({}, log), UntracedController)
    assert isinstance(open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "canary"}, log), UntracedController)
    (warning,) = log.events
    assert "canary" not in str(warning)
    imported = (
        "import sys; from controller.tracing.interface import open_tracing; open_tracing({}, None);"
        "sys.exit('opentelemetry' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", imported], check=False).returncode == 0


_CONTROLLER = """
import os, time
from controller.tracing.interface import open_tracing
from policy.manifest import parse_policy
from tests.support.runs import Log, manifest
log = Log()
tracing = open_tracing(os.environ, log)
tracing.record_reconciliation(parse_policy(manifest()), tracing.traceparent({"spec": {}}), time.time_ns())
began = time.monotonic()
tracing.close()
print(len(log.events), time.monotonic() - began)
"""


@pytest.mark.representative(kind=["hanging"])
@pytest.mark.parametrize("kind", TROUBLES)
def test_r1_3_a_collector_that_does_not_work_does_not_keep_the_controller_alive(otlp: Collector, kind: str) -> None:
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_TIMEOUT": "1", **trouble(otlp, kind)}
    done = subprocess.run(
        [sys.executable, "-c", _CONTROLLER],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    warnings, seconds = done.stdout.split()
    # One warning; none yet of a collector that has not answered.
    assert warnings == ("0" if kind == "hanging" else "1")
    assert float(seconds) < EXPORT_SECONDS + 100  # the collector hangs for good
