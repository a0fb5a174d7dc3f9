"""Runs and what becomes known of them. The Job controller is real; the kubelet is played by the test."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.controlplane.controller_process import ControllerProcess
from tests.controlplane.kubelet import Kubelet, report
from tests.controlplane.policies import Policies, Policy

CANARY = "postgresql://admin:s3cr3t-canary@db/shop"


@pytest.fixture
def kubelet(policies: Policies) -> Kubelet:
    return Kubelet(policies.kubectl, policies.namespace)


def wait_for(policy: Policy, condition: str) -> None:
    policy.kubectl.run("wait", f"spol/{policy.name}", "-n", policy.namespace, f"--for={condition}", "--timeout=240s")


def test_r1_2_a_requested_run_is_made_recorded_and_told(policies: Policies, kubelet: Kubelet) -> None:
    policy = policies.ready()
    job = policy.request_run("2026-03-01T10:00:00Z")
    policy.await_condition("Running", "True")
    assert policy.status()["lastHandledRunRequest"] == "2026-03-01T10:00:00Z"
    kubelet.finish(job, report())
    wait_for(policy, "condition=LastRunSucceeded")
    status = policy.status()
    assert status["lastRun"] == status["history"][0]
    last = status["lastRun"]
    assert (last["outcome"], last["trigger"], last["jobName"]) == ("Succeeded", "Request", job)
    assert last["sessions"]["deleted"] == 3
    assert last["redis"]["deleted"] == 3
    assert status["lastSuccessTime"] == last["completionTime"]
    assert policy.condition("Running") == {}
    assert "3 of 3 expired sessions deleted" in policy.await_event("RunSucceeded")
    assert [reason for reason, _ in policy.events()].count("RunSucceeded") == 1


def test_a_request_is_acted_on_once_and_a_new_one_again(policies: Policies, kubelet: Kubelet) -> None:
    policy = policies.ready()
    first = policy.request_run("one")
    kubelet.finish(first, report())
    policy.await_record(first)
    second = policy.request_run("two")
    assert [job["metadata"]["name"] for job in policy.jobs()] == sorted([first, second]) or len(policy.jobs()) == 2


def test_a_request_works_while_the_policy_is_suspended(policies: Policies, kubelet: Kubelet) -> None:
    policy = policies.ready(suspend=True)
    job = policy.request_run()
    kubelet.finish(job, report())
    assert policy.await_record(job)["trigger"] == "Request"


def test_a_request_that_comes_with_the_policy_itself_is_acted_on(policies: Policies) -> None:
    policy = policies.named()
    policies.kubectl.apply(
        {
            "apiVersion": "sessionpolicy.dev/v1alpha1",
            "kind": "SessionPolicy",
            "metadata": {"name": policy.name, "annotations": {"sessionpolicy.dev/run-requested-at": "first"}},
            "spec": {"stores": {"database": {"urlFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}}},
        },
        policies.namespace,
    )
    policy.await_status(lambda s: s.get("lastHandledRunRequest") == "first", "the request is handled")
    assert len(policy.jobs()) == 1


def test_a_request_waits_until_the_spec_can_be_used(policies: Policies) -> None:
    policy = policies.named()
    policy.apply(schedule="nonsense")
    policy.await_condition("Ready", "False")
    policies.kubectl.run(
        "annotate", "spol", policy.name, "-n", policy.namespace, "sessionpolicy.dev/run-requested-at=early"
    )
    policies.ready()
    assert policy.jobs() == []
    policy.apply()
    policy.await_status(lambda s: s.get("lastHandledRunRequest") == "early", "the request is handled")
    assert len(policy.jobs()) == 1


def test_a_hostile_request_token_is_handled_and_fits_the_status(policies: Policies) -> None:
    policy = policies.ready()
    policy.request_run("x" * 5000)
    handled = policy.await_status(lambda s: "lastHandledRunRequest" in s, "the request is handled")
    assert len(handled["lastHandledRunRequest"]) <= 256


def test_a_job_made_by_hand_is_recorded_as_manual(policies: Policies, kubelet: Kubelet) -> None:
    policy = policies.ready()
    job = policy.make_job_by_hand()
    kubelet.finish(job, report())
    assert policy.await_record(job)["trigger"] == "Manual"


def test_a_job_with_the_label_that_is_not_the_cron_job_s_is_not_recorded(policies: Policies, kubelet: Kubelet) -> None:
    policy = policies.ready()
    label = {"sessionpolicy.dev/policy": policy.name}
    container = {"name": "session-policy", "image": "x"}
    forged = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{policy.name}-forged", "labels": label},
        "spec": {
            "template": {
                "metadata": {"labels": label},
                "spec": {"restartPolicy": "Never", "containers": [container]},
            }
        },
    }
    policies.kubectl.apply(forged, policies.namespace)
    kubelet.finish(f"{policy.name}-forged", report(message="forged"))
    own = policy.request_run()
    kubelet.finish(own, report())
    policy.await_record(own)
    assert [record["jobName"] for record in policy.status()["history"]] == [own]


@pytest.mark.representative(1)
@pytest.mark.parametrize(
    ("outcome", "succeeded", "failures"), [("Degraded", "False", 1), ("Failed", "False", 1), ("Skipped", None, 0)]
)
def test_a_complete_job_may_have_another_outcome_than_success(
    policies: Policies, kubelet: Kubelet, outcome: str, succeeded: str | None, failures: int
) -> None:
    policy = policies.ready()
    job = policy.request_run()
    kubelet.finish(job, report(outcome=outcome, reason="TimeLimit", message="some remain"))
    assert policy.await_record(job)["outcome"] == outcome
    assert policy.condition("LastRunSucceeded").get("status") == succeeded
    assert policy.status().get("consecutiveFailures", 0) == failures
    assert policy.condition("Ready")["status"] == "True"


def test_a_failed_run_is_told_and_a_success_ends_the_count(policies: Policies, kubelet: Kubelet) -> None:
    policy = policies.ready()
    for failures in (1, 2):
        job = policy.request_run()
        kubelet.finish(job, report(outcome="Failed", reason="DatabaseUnavailable", message="no route"), exit_code=1)
        policy.await_record(job)
        assert policy.status()["consecutiveFailures"] == failures
    wait_for(policy, "condition=LastRunSucceeded=false")
    assert policy.condition("LastRunSucceeded")["reason"] == "DatabaseUnavailable"
    assert "no route" in policy.await_event("RunFailed")
    job = policy.request_run()
    kubelet.finish(job, report())
    policy.await_record(job)
    assert policy.status()["consecutiveFailures"] == 0


@pytest.mark.exhaustive
def test_the_report_of_the_last_attempt_counts(policies: Policies, kubelet: Kubelet) -> None:
    policy = policies.ready(job={"retries": 1})
    job = policy.request_run()
    first = kubelet.finish(job, report(outcome="Failed", reason="First"), exit_code=1)
    kubelet.pod_of(job, other_than=first)
    kubelet.finish(job, report(reason="Second"))
    assert policy.await_record(job)["reason"] == "Second"


def test_bad_configuration_is_not_tried_again(policies: Policies, kubelet: Kubelet) -> None:
    policy = policies.ready(job={"retries": 5})
    job = policy.request_run()
    message = report(outcome="Failed", reason="InvalidURL", message="DATABASE_URL is not a URL")
    kubelet.finish(job, message, exit_code=2)
    assert policy.await_record(job)["reason"] == "InvalidURL"
    assert len(policies.kubectl.list("pods", policy.namespace, f"batch.kubernetes.io/job-name={job}")) == 1


@pytest.mark.exhaustive
def test_an_evicted_pod_costs_no_attempt(policies: Policies, kubelet: Kubelet) -> None:
    policy = policies.ready()
    job = policy.request_run()
    evicted = kubelet.evict(job)
    kubelet.pod_of(job, other_than=evicted)
    kubelet.finish(job, report())
    assert policy.await_record(job)["outcome"] == "Succeeded"


@pytest.mark.representative(2)
@pytest.mark.parametrize(
    ("ending", "reason", "advice"),
    [
        ({"exit_code": 137, "reason": "OOMKilled"}, "OOMKilled", "spec.job.resources.limits.memory"),
        ({"exit_code": 137, "reason": "Error"}, "Killed", "killed"),
        ({"exit_code": 1}, "NoReport", "exit code 1"),
        ({"exit_code": 2}, "BadConfiguration", "log"),
        ({"exit_code": 137, "reason": "Error", "status": "DeadlineExceeded"}, "DeadlineExceeded", "timeoutSeconds"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_r1_2_a_failure_the_container_could_not_report_is_told(
    policies: Policies, kubelet: Kubelet, ending: dict[str, Any], reason: str, advice: str
) -> None:
    policy = policies.ready()
    job = policy.request_run()
    if status := ending.pop("status", None):
        kubelet.fail(job, status)
    else:
        kubelet.finish(job, **ending)
    record = policy.await_record(job)
    assert (record["outcome"], record["reason"]) == ("Failed", reason)
    assert advice in record["message"]


@pytest.mark.representative(2)
@pytest.mark.parametrize(
    ("reason", "message", "expected", "advice"),
    [
        ("ErrImagePull", "not found", "ImagePullBackOff", "pull secrets"),
        (
            "CreateContainerConfigError",
            'secret "stores" not found',
            "CreateContainerConfigError",
            'secret "stores" not',
        ),
        ("InvalidImageName", "couldn't parse", "InvalidImageName", "job image"),
        ("Unschedulable", "0/1 nodes are available", "Unschedulable", "0/1 nodes"),
    ],
)
def test_r1_2_a_pod_that_cannot_start_stalls_the_policy_and_explains_the_end(
    policies: Policies, kubelet: Kubelet, reason: str, message: str, expected: str, advice: str
) -> None:
    policy = policies.ready()
    job = policy.request_run()
    if reason == "Unschedulable":
        kubelet.unschedulable(job, message)
    else:
        kubelet.wait(job, reason, message)
    stalled = policy.await_condition("Stalled", "True", expected)
    assert advice in stalled["message"]
    assert policy.condition("Ready")["status"] == "True"
    assert policy.await_event(expected)
    # The Job's own deadline ends it, and takes the Pod and with it the cause away.
    where = ("job", job, "-n", policy.namespace)
    policies.kubectl.run("patch", *where, "--type=merge", "-p", json.dumps({"spec": {"activeDeadlineSeconds": 1}}))
    record = policy.await_record(job)
    assert (record["outcome"], record["reason"]) == ("Failed", expected)
    assert policies.kubectl.list("pods", policy.namespace, f"batch.kubernetes.io/job-name={job}") == []
    policy.await_status(lambda s: "Stalled" not in {c["type"] for c in s["conditions"]}, "not stalled any more")


def test_a_secret_that_is_created_ends_the_stall(policies: Policies, kubelet: Kubelet) -> None:
    policy = policies.ready()
    job = policy.request_run()
    kubelet.wait(job, "CreateContainerConfigError", 'secret "stores" not found')
    policy.await_condition("Stalled", "True")
    kubelet.finish(job, report())
    policy.await_record(job)
    assert policy.condition("Stalled") == {}


HOSTILE = {
    "not JSON": f"Traceback: {CANARY}",
    "other JSON": json.dumps({"secret": CANARY}),
    "extra field": report(secret=CANARY),
    "huge number": report(sessions={"deleted": 10**30}, message=CANARY),
    "too large": report(message=CANARY) + " " * 4096,
    "control characters outside strings": "\x1b[31m" + report(message=CANARY),
    "wrong type": report(durationSeconds=CANARY),
}


def test_a_hostile_report_leaves_no_trace(policies: Policies, kubelet: Kubelet, controller: ControllerProcess) -> None:
    policy = policies.ready()
    policies.kubectl.run(
        "create", "secret", "generic", "stores", "-n", policies.namespace, f"--from-literal=database-url={CANARY}"
    )
    try:
        for message in HOSTILE.values():
            job = policy.request_run()
            kubelet.finish(job, message, exit_code=1)
            assert policy.await_record(job)["reason"] == "NoReport"
    finally:
        policies.kubectl.run("delete", "secret", "stores", "-n", policies.namespace)
    policy.await_event("RunFailed")
    for place in (json.dumps(policy.get()), json.dumps(policy.events()), controller.log()):
        assert "s3cr3t-canary" not in place


def test_control_characters_in_a_valid_report_are_taken_out(policies: Policies, kubelet: Kubelet) -> None:
    policy = policies.ready()
    job = policy.request_run()
    kubelet.finish(job, report(message="a\u001b[31mb\nc\u202ed"))
    assert policy.await_record(job)["message"].isprintable()


def test_a_report_from_the_future_does_not_stay_the_last(policies: Policies, kubelet: Kubelet) -> None:
    policy = policies.ready()
    liar = policy.request_run()
    kubelet.finish(liar, report(startTime="9998-01-01T00:00:00Z", completionTime="9999-01-01T00:00:00Z"))
    policy.await_record(liar)
    job = policy.request_run()
    kubelet.finish(job, report())
    policy.await_record(job)
    # Both ended within one second, perhaps: then any order is right. What matters is that neither is in the future.
    assert all(record["completionTime"] < "9000" for record in policy.status()["history"])


def test_r1_2_the_history_keeps_the_last_ten(policies: Policies, kubelet: Kubelet) -> None:
    policy = policies.ready()
    old = [
        json.loads(report(outcome="Failed", completionTime=f"2026-03-01T10:5{9 - number}:00Z"))
        | {"jobName": f"old-{number}", "jobUID": f"old-{number}", "trigger": "Schedule"}
        for number in range(10)
    ]
    status = {"status": {"history": old, "lastRun": old[0], "consecutiveFailures": 10}}
    where = ("spol", policy.name, "-n", policy.namespace, "--subresource=status", "--type=merge")
    policies.kubectl.run("patch", *where, "-p", json.dumps(status))
    new: list[str] = []
    for _ in range(2):
        job = policy.make_job_by_hand()
        kubelet.finish(job, report(outcome="Failed"), exit_code=1)
        policy.await_record(job)
        new.insert(0, job)
    seen = policy.status()
    assert [record["jobName"] for record in seen["history"]] == new + [f"old-{number}" for number in range(8)]
    assert seen["lastRun"] == seen["history"][0]
    assert seen["consecutiveFailures"] == 12


def test_r1_2_kubectl_get_shows_the_state_at_a_glance(policies: Policies, kubelet: Kubelet) -> None:
    policy = policies.ready()
    job = policy.request_run()
    kubelet.finish(job, report())
    policy.await_record(job)
    table = policies.kubectl.run("get", "spol", policy.name, "-n", policy.namespace, "-o", "wide")
    header, row = table.splitlines()
    for column in ("READY", "SCHEDULE", "LAST RESULT", "DELETED", "ACTIVE", "LAST RUN", "NEXT RUN", "MESSAGE"):
        assert column in header
    for value in ("True", "Succeeded", "3 of 3 expired sessions deleted"):
        assert value in row
