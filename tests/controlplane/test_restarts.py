"""The controller is stopped, killed and cut off; nothing is lost and nothing happens twice."""

from __future__ import annotations

import json
import random

import pytest

from controller.manifests.drift import take_over
from policy.names import RUN_REQUEST_ANNOTATION
from tests.controlplane.conftest import StartController
from tests.controlplane.controller_process import ControllerProcess
from tests.controlplane.kubelet import Kubelet, report
from tests.controlplane.policies import Policies
from tests.support.controlplane import ControlPlane
from tests.support.kube import eventually


def job_is_finished(own: Policies, job: str) -> bool:
    conditions = own.kubectl.get("job", job, own.namespace).get("status", {}).get("conditions", [])
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)


def test_sigterm_ends_it_in_order_and_quickly(own: Policies, start_controller: StartController) -> None:
    process = start_controller(own.namespace)
    own.ready()
    assert process.stop() == 0


def test_r1_2_a_run_that_ended_while_the_controller_was_down_is_recorded_once(
    own: Policies, kubelet: Kubelet, start_controller: StartController
) -> None:
    process = start_controller(own.namespace)
    policy = own.ready()
    job = policy.request_run()
    policy.await_status(lambda s: "lastHandledRunRequest" in s, "the request is handled")
    process.stop()
    kubelet.finish(job, report())
    eventually(lambda: job_is_finished(own, job), what="the Job is finished")
    assert "lastRun" not in policy.status()
    process.start()
    policy.await_record(job)
    version = policy.get()["metadata"]["resourceVersion"]
    process.stop()
    process.start()
    own.ready()  # by now it has looked at everything
    assert policy.get()["metadata"]["resourceVersion"] == version
    assert [reason for reason, _ in policy.events()].count("RunSucceeded") == 1


def test_r1_1_what_changed_while_the_controller_was_down_is_made_good(
    own: Policies, start_controller: StartController
) -> None:
    process = start_controller(own.namespace)
    edited, drifted, deleted = own.ready(), own.ready(), own.ready()
    process.stop()
    edited.apply(schedule="1 2 * * *")
    patch = json.dumps({"spec": {"suspend": True}})
    own.kubectl.run("patch", "cronjob", drifted.name, "-n", own.namespace, "--type=merge", "-p", patch)
    own.kubectl.run("delete", "cronjob", deleted.name, "-n", own.namespace)
    process.start()
    eventually(lambda: edited.cron_job()["spec"]["schedule"] == "1 2 * * *", what="the edit has arrived")
    eventually(lambda: drifted.cron_job()["spec"]["suspend"] is False, what="the drift is put back")
    eventually(deleted.has_cron_job, what="the CronJob is back")


def test_killed_at_any_point_it_loses_and_doubles_nothing(
    own: Policies, kubelet: Kubelet, start_controller: StartController
) -> None:
    process = start_controller(own.namespace)
    policy = own.ready()
    chance = random.Random(20260301)
    for number in range(6):
        own.kubectl.run(
            *("annotate", "spol", policy.name, f"sessionpolicy.dev/run-requested-at=kill-{number}"),
            *("--overwrite", "-n", own.namespace),
        )
        # Anywhere between start-up, the making of the Job, and the status that says so.
        process.kill_after(chance.uniform(0.5, 1.6))
    process.kill()
    process.start()
    # Requested runs are made one at a time: what was asked for meanwhile starts when the one before has ended.
    finished: list[str] = []
    while policy.status().get("lastHandledRunRequest") != "kill-5" or len(policy.jobs()) > len(finished):
        job = eventually(
            lambda: next((j["metadata"]["name"] for j in policy.jobs() if j["metadata"]["name"] not in finished), ""),
            what="the next requested run is made",
        )
        kubelet.finish(job, report())
        finished.append(job)
        process.kill_after(chance.uniform(0.5, 1.6))
        process.start()
        policy.await_record(job)
    made = policy.jobs()
    tokens = [job["metadata"]["annotations"][RUN_REQUEST_ANNOTATION] for job in made]
    assert len(tokens) == len(set(tokens))
    assert "kill-5" in tokens
    recorded = [record["jobUID"] for record in policy.status()["history"]]
    assert sorted(recorded) == sorted(job["metadata"]["uid"] for job in made)
    assert len(policy.jobs()) <= len(made)


def test_r1_1_killed_between_taking_a_field_over_and_removing_it_it_still_removes_it(
    own: Policies, start_controller: StartController
) -> None:
    process = start_controller(own.namespace)
    policy = own.ready()
    process.kill()
    where = ("patch", "cronjob", policy.cron_job_name, "-n", own.namespace, "--type=json", "-p")
    path = "/spec/jobTemplate/spec/template/spec/hostNetwork"
    own.kubectl.run(*where, json.dumps([{"op": "add", "path": path, "value": True}]))
    own.kubectl.run(*where, json.dumps(take_over(policy.cron_job())))
    process.start()

    def removed() -> bool:
        return "hostNetwork" not in policy.cron_job()["spec"]["jobTemplate"]["spec"]["template"]["spec"]

    eventually(removed, what="the added field is removed")


def test_a_lost_event_is_made_good_by_the_resync(
    own: Policies, kubelet: Kubelet, start_controller: StartController
) -> None:
    start_controller(own.namespace, SESSION_POLICY_RESYNC_SECONDS="1")
    policy = own.ready()
    # Nobody watches a status, so nothing tells that somebody emptied it.
    own.kubectl.run(
        *("patch", "spol", policy.name, "-n", own.namespace, "--subresource=status", "--type=json"),
        *("-p", json.dumps([{"op": "replace", "path": "/status", "value": {}}])),
    )
    policy.await_condition("Ready", "True")


@pytest.mark.exhaustive
def test_an_api_server_that_crashes_or_freezes_costs_no_outcome_and_no_process(
    own: Policies,
    kubelet: Kubelet,
    start_controller: StartController,
    controller: ControllerProcess,
    own_control_plane: ControlPlane,
) -> None:
    process = start_controller(own.namespace)
    policy = own.ready()
    job = policy.request_run()
    own_control_plane.kill_api_server()
    own_control_plane.start_api_server()
    kubelet.finish(job, report())
    policy.await_record(job)
    second = policy.request_run()
    kubelet.finish(second, report())
    own_control_plane.pause_api_server()
    try:
        assert process.is_healthy()  # a restart by the kubelet would not help a frozen API server
    finally:
        own_control_plane.resume_api_server()
    policy.await_record(second)
    assert process.is_running()
    assert controller.is_running()


def test_only_its_namespaces_are_served(own: Policies, start_controller: StartController, controller: object) -> None:
    outside = own.named()
    outside.apply()
    with own.kubectl.temporary_namespace() as other:
        start_controller(other)
        Policies(own.kubectl, other).ready()
        assert outside.status() == {}


def test_a_wrong_configuration_is_refused_with_exit_code_2(
    operator_kubeconfig: object, start_controller: StartController, own: Policies
) -> None:
    with pytest.raises(AssertionError, match="SESSION_POLICY_LOG_LEVEL must be one of"):
        start_controller(own.namespace, SESSION_POLICY_LOG_LEVEL="LOUD")
