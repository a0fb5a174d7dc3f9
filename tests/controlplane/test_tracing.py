"""R1.3: one trace for each run, written by the real controller and the real job, as a collector receives it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller.manifests.trace_link import link
from policy.names import FIELD_MANAGER
from policy.opentelemetry_env import TRACEPARENT_ENV
from policy.tracing import root_span_id, trace_id
from tests.controlplane.conftest import StartController
from tests.controlplane.controller_process import ControllerProcess
from tests.controlplane.kubelet import Kubelet, report
from tests.controlplane.policies import Policies, Policy
from tests.controlplane.somebody import Somebody
from tests.support import pod_process
from tests.support.kube import Kubectl, eventually
from tests.support.otlp import Collector, Span, collector
from tests.support.runs import Finished
from tests.support.session_stores import HOUR, SessionStores

CANARY = "canary-4f1d"
RUN, RECORD, RECONCILE = "session-policy run", "record outcome", "reconcile"
PATH_TO_ENV = "/spec/jobTemplate/spec/template/spec/containers/0/env"

# Exported at once: nothing is waited for longer than it takes.
PROMPT = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


@pytest.fixture
def otlp() -> Iterator[Collector]:
    with collector() as one:
        yield one


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[SessionStores]:
    """Three expired sessions and a live one, whose ids and user must be told to nobody."""
    made = SessionStores(f"sqlite:///{tmp_path / CANARY}.db")
    made.add_many(((f"{CANARY}-{n}", f"{CANARY}-user") for n in range(3)), used=HOUR)
    made.add(f"{CANARY}-live", f"{CANARY}-user")
    yield made
    made.close()


@dataclass
class World:
    """A namespace, its controller, its kubelet, and what its Secrets hold."""

    kubectl: Kubectl
    namespace: str
    start_controller: StartController
    stores: SessionStores
    directory: Path

    @property
    def policies(self) -> Policies:
        return Policies(self.kubectl, self.namespace)

    @property
    def kubelet(self) -> Kubelet:
        return Kubelet(self.kubectl, self.namespace)

    @property
    def secrets(self) -> dict[str, str]:
        return {"stores/database-url": self.stores.database_url, "otlp/token": f"authorization={CANARY}"}

    def traced(self, endpoint: str, **more: str) -> ControllerProcess:
        """A controller that has itself and all runs traced, as the chart would have it."""
        return self.start_controller(
            self.namespace,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            SESSION_POLICY_JOB_TELEMETRY_ENDPOINT=endpoint,
            SESSION_POLICY_JOB_TELEMETRY_HEADERS_SECRET="otlp",
            SESSION_POLICY_JOB_TELEMETRY_HEADERS_KEY="token",
            SESSION_POLICY_JOB_TELEMETRY_RESOURCE_ATTRIBUTES="k8s.cluster.name=north",
            SESSION_POLICY_POD_NAME="operator-0",
            **PROMPT,
            **more,
        )

    def pod(self, policy: Policy, job: str) -> dict[str, Any]:
        """The Job's Pod, which has not begun."""
        found = policy.api.get("pods", self.namespace, self.kubelet.pod_of(job))
        assert found is not None
        return found

    def run(self, policy: Policy) -> tuple[dict[str, Any], dict[str, Any], Finished]:
        """Runs the policy as a node would; gives the Pod, the record and what the container left."""
        job = policy.request_run()
        pod = self.pod(policy, job)
        done = pod_process.start(pod, self.secrets, self.directory / job).wait()
        self.kubelet.finish(job, done.termination_message, exit_code=done.exit_code)
        return pod, policy.await_record(job), done


@pytest.fixture
def world(
    cluster: Kubectl, namespace: str, start_controller: StartController, stores: SessionStores, tmp_path: Path
) -> World:
    return World(cluster, namespace, start_controller, stores, tmp_path)


def await_span(otlp: Collector, name: str, trace: str | None = None) -> Span:
    def probe() -> Span | None:
        return next((s for s in otlp.spans if s.name == name and trace in (None, s.trace_id)), None)

    found = eventually(probe, what=f"a span {name!r} of trace {trace}")
    assert found is not None
    return found


def logged(process: ControllerProcess, **fields: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in process.log().splitlines() if line.startswith("{"))
    return [line for line in lines if fields.items() <= line.items()]


def check_controller_s_spans(otlp: Collector, pod: dict[str, Any], record: dict[str, Any]) -> tuple[Span, Span]:
    """The spans of both sides hang together. Gives the run's and the recording's."""
    trace = trace_id(record["jobUID"])
    assert record["traceID"] == trace
    recorded = await_span(otlp, RECORD, trace)
    root = await_span(otlp, RUN, trace)
    reconcile = await_span(otlp, RECONCILE)
    assert root.span_id == root_span_id(record["jobUID"], pod["metadata"]["uid"])
    assert (root.parent_id, recorded.parent_id) == ("", root.span_id)
    assert reconcile.trace_id != trace
    assert (recorded.service, reconcile.service) == ("session-policy-controller",) * 2
    assert recorded.resource["k8s.pod.name"] == "operator-0"
    for span in (root, recorded):
        assert span.attributes["session_policy.run.outcome"] == record["outcome"]
        assert span.attributes["session_policy.run.reason"] == record["reason"]
        assert span.status == ("ERROR" if record["outcome"] == "Failed" else "UNSET")
    return root, recorded


def test_r1_3_controller_and_job_write_one_trace_and_the_status_names_it(world: World, otlp: Collector) -> None:
    process = world.traced(otlp.endpoint)
    policy = world.policies.ready("shop", safety={"maxDeletePercent": 100})
    pod, record, done = world.run(policy)
    assert (record["outcome"], record["sessions"]["deleted"]) == ("Succeeded", 3), done

    root, recorded = check_controller_s_spans(otlp, pod, record)
    assert root.service == "session-policy-job"
    reconcile = await_span(otlp, RECONCILE)
    assert root.links == [(reconcile.trace_id, reconcile.span_id)]
    assert reconcile.attributes["session_policy.policy.generation"] == 1
    assert root.end_ns <= recorded.start_ns
    assert recorded.attributes["session_policy.sessions.deleted"] == 3
    assert recorded.attributes["k8s.job.name"] == record["jobName"]
    metadata = pod["metadata"]
    assert {name: value for name, value in root.resource.items() if name.startswith("k8s.")} == {
        "k8s.cluster.name": "north",
        "k8s.namespace.name": world.namespace,
        "k8s.node.name": pod_process.NODE,
        "k8s.pod.name": metadata["name"],
        "k8s.pod.uid": metadata["uid"],
        "k8s.container.name": "session-policy",
        "k8s.job.name": record["jobName"],
        "k8s.job.uid": record["jobUID"],
        "k8s.cronjob.name": "shop",
    }
    # Where people look.
    assert f"trace {record['traceID']}" in policy.await_event("RunSucceeded")
    assert len(logged(process, trace_id=record["traceID"], reason="RunSucceeded")) == 1
    row = world.kubectl.run("get", "spol", "shop", "-n", world.namespace, "-o", "wide", "--no-headers")
    assert record["traceID"] in row.split()

    # A run that fails, in a trace of its own; the reconciliation is the same.
    world.stores.sql("DROP TABLE sessions")
    pod, record, done = world.run(policy)
    assert (record["outcome"], done.exit_code) == ("Failed", 2), done
    failed, _ = check_controller_s_spans(otlp, pod, record)
    assert failed.trace_id != root.trace_id
    assert failed.links == root.links
    assert len([span for span in otlp.spans if span.name == RECONCILE]) == 1
    assert process.stop() == 0

    assert {headers.get("authorization") for headers in otlp.headers} == {CANARY, None}
    assert all(CANARY.encode() not in body for _, body in otlp.bodies)
    assert CANARY not in process.log() + json.dumps(policy.get()) + str(policy.events())


def test_r1_3_the_trace_of_a_run_that_is_killed_is_written_by_the_controller(world: World, otlp: Collector) -> None:
    world.traced(otlp.endpoint)
    policy = world.policies.ready("shop", retries={"database": {"attempts": 10, "delaySeconds": 300}})
    job = policy.request_run()
    pod = world.pod(policy, job)
    with sqlite3.connect(world.stores.database_url.removeprefix("sqlite:///")) as held:
        held.execute("BEGIN EXCLUSIVE")
        started = pod_process.start(pod, world.secrets, world.directory / job)
        assert started.process.stdout
        assert any("run started" in line for line in started.process.stdout)
        started.process.send_signal(signal.SIGKILL)
        done = started.wait()
    assert (done.exit_code, done.termination_message) == (-signal.SIGKILL, "")
    assert RUN not in {span.name for span in otlp.spans}
    world.kubelet.finish(job, exit_code=137, reason="OOMKilled")

    record = policy.await_record(job)
    assert (record["outcome"], record["reason"]) == ("Failed", "OOMKilled")
    root, _ = check_controller_s_spans(otlp, pod, record)
    assert root.service == "session-policy-controller"
    assert root.attributes["session_policy.run.reported"] == 0
    assert f"trace {record['traceID']}" in policy.await_event("RunFailed")


def test_r1_3_what_a_report_says_of_another_trace_is_not_believed(world: World, otlp: Collector) -> None:
    process = world.traced(otlp.endpoint)
    policy = world.policies.ready("shop")
    job = policy.request_run()
    world.kubelet.finish(job, report(traceID=trace_id("another Job")))
    assert "traceID" not in policy.await_record(job)
    assert process.stop() == 0
    assert {span.name for span in otlp.spans} == {RECONCILE}


@pytest.mark.exhaustive
@pytest.mark.representative(trouble=["hanging"])
@pytest.mark.parametrize("trouble", ["hanging", "refusing", "absent"])
def test_r1_3_a_collector_that_does_not_work_keeps_no_outcome_from_the_status(
    world: World, otlp: Collector, trouble: str
) -> None:
    otlp.hangs = trouble == "hanging"
    otlp.status = 503 if trouble == "refusing" else 200
    process = world.traced("http://127.0.0.1:9" if trouble == "absent" else otlp.endpoint)
    policy = world.policies.ready("shop", safety={"maxDeletePercent": 100})
    if trouble != "absent":
        assert otlp.asked.wait(30)  # from here on the controller waits for the collector
    _, record, done = world.run(policy)
    assert (record["outcome"], done.exit_code) == ("Succeeded", 0)
    assert "traceID" not in record
    # And once more: nothing has been used up.
    job = policy.request_run()
    world.kubelet.finish(job, exit_code=137, reason="OOMKilled")
    assert policy.await_record(job)["reason"] == "OOMKilled"
    assert process.is_healthy()
    assert process.stop() == 0


@pytest.mark.exhaustive
def test_r1_3_what_a_policy_says_of_tracing_holds_for_both_sides(world: World, otlp: Collector) -> None:
    process = world.traced(otlp.endpoint)
    off = world.policies.ready("off", telemetry={"enabled": False})
    unsampled = world.policies.ready("unsampled", telemetry={"samplingPercent": 0})
    assert link(off.cron_job()) is None
    for policy in (off, unsampled):
        _, record, _ = world.run(policy)
        assert "traceID" not in record
        job = policy.request_run()
        world.kubelet.finish(job, exit_code=137, reason="OOMKilled")
        assert "traceID" not in policy.await_record(job)
    assert process.stop() == 0
    assert {span.name for span in otlp.spans} == {RECONCILE}
    assert {span.attributes["session_policy.policy.name"] for span in otlp.spans} == {"unsampled"}
    assert {point.attributes["session_policy.policy.name"] for point in otlp.points} == {"unsampled"}


def test_r1_3_without_an_endpoint_nothing_is_traced_and_opentelemetry_is_not_even_imported(
    world: World, otlp: Collector, tmp_path: Path
) -> None:
    imported = tmp_path / "imported"
    fake = tmp_path / "first" / "opentelemetry"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text(f"open({str(imported)!r}, 'w').close()\nraise ImportError\n")
    path = os.pathsep.join([str(fake.parent), os.environ.get("PYTHONPATH", "")])
    process = world.start_controller(world.namespace, PYTHONPATH=path)
    policy = world.policies.ready("shop")
    assert not [v for v in environment_of(policy) if v.startswith("OTEL_") or v == TRACEPARENT_ENV]
    _, record, _ = world.run(policy)
    assert "traceID" not in record
    assert "trace " not in policy.await_event("RunSucceeded")
    assert process.stop() == 0
    assert not imported.exists()

    # The test sees an import where there is one, and OpenTelemetry's failing fails nothing.
    process = world.start_controller(world.namespace, PYTHONPATH=path, OTEL_EXPORTER_OTLP_ENDPOINT=otlp.endpoint)
    assert imported.exists()
    assert logged(process, event="telemetry off")


def environment_of(policy: Policy) -> dict[str, Any]:
    (container,) = policy.cron_job()["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable.get("value") for variable in container["env"]}


@pytest.mark.exhaustive
def test_r1_3_the_link_changes_with_the_template_and_with_nothing_else(world: World, otlp: Collector) -> None:
    process = world.traced(otlp.endpoint, SESSION_POLICY_RESYNC_SECONDS="1")
    policy = world.policies.ready("shop")
    first = link(policy.cron_job())
    assert first
    generation = policy.cron_job()["metadata"]["generation"]
    process.stop()
    process.start()
    _, record, _ = world.run(policy)
    assert record["traceID"]
    # After a restart, a run and several resyncs, nobody has written it.
    assert policy.cron_job()["metadata"]["generation"] == generation
    assert link(policy.cron_job()) == first

    policy.apply(suspend=True)
    policy.await_condition("Ready", "True", "Suspended")
    second = link(policy.cron_job())
    assert second
    assert second != first
    spans = eventually(
        lambda: found if len(found := [s for s in otlp.spans if s.name == RECONCILE]) == 2 else None,
        what="a span for each change",
    )
    assert [f"00-{span.trace_id}-{span.span_id}-01" for span in spans or ()] == [first, second]

    # Switched off, it goes.
    process.stop()
    world.start_controller(world.namespace)
    eventually(lambda: TRACEPARENT_ENV not in environment_of(policy), what="the link is gone")
    assert not [name for name in environment_of(policy) if name.startswith("OTEL_")]


@pytest.mark.representative(1)
@pytest.mark.parametrize("manager", ["somebody", FIELD_MANAGER])
def test_r1_1_a_link_that_somebody_changed_is_put_back(world: World, otlp: Collector, manager: str) -> None:
    world.traced(otlp.endpoint)
    policy = world.policies.ready("shop")
    somebody = Somebody(world.kubectl.kubeconfig)
    env = list(environment_of(policy))
    own, where = link(policy.cron_job()), f"{PATH_TO_ENV}/{env.index(TRACEPARENT_ENV)}"
    for operation in (
        {"op": "add", "path": f"{where}/value", "value": f"00-{'a' * 32}-{'b' * 16}-01"},
        {"op": "add", "path": f"{where}/value", "value": "$(DATABASE_URL)"},
        {"op": "remove", "path": where},
    ):
        somebody.change("cronjobs", world.namespace, policy.cron_job_name, [operation], manager)
        eventually(lambda: link(policy.cron_job()) == own, what=f"{operation} is put back")
    version = policy.cron_job()["metadata"]["resourceVersion"]
    world.policies.ready()  # by now the controller has had the time to write again
    assert policy.cron_job()["metadata"]["resourceVersion"] == version
