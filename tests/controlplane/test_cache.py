"""The cache against the real API server: what it saves, and that nothing is lost when it is behind or told nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.api.kube import CRON_JOBS, JOBS, PODS, POLICIES
from policy.names import FIELD_MANAGER, POLICY_LABEL, RUN_REQUEST_ANNOTATION
from tests.controlplane.api import Api
from tests.controlplane.conftest import StartController
from tests.controlplane.kubelet import Kubelet, report
from tests.controlplane.policies import Policies, Policy, manifest
from tests.controlplane.unwatching import unwatching_controller
from tests.support.controlplane import ControlPlane
from tests.support.kube import Kubectl, eventually
from tests.unit.controller.builders import job as finished_job

NEVER_AGAIN = 86_400


@pytest.fixture
def api(cluster: Kubectl) -> Api:
    return Api(cluster.kubeconfig)


def is_finished(own: Policies, job: str) -> bool:
    conditions = own.kubectl.get("job", job, own.namespace).get("status", {}).get("conditions", [])
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)


def finish(own: Policies, kubelet: Kubelet, job: str, message: str) -> None:
    kubelet.finish(job, message)
    eventually(lambda: is_finished(own, job), what="the Job is finished")


def delete(own: Policies, job: str) -> None:
    """The Job and its Pods are gone when this returns."""
    own.kubectl.run("delete", "job", job, "-n", own.namespace, "--cascade=foreground", "--timeout=240s")


# --- what it saves ---------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_requests_are_those_that_change_something_and_the_lists(
    own: Policies, kubelet: Kubelet, start_controller: StartController, control_plane: ControlPlane
) -> None:
    def asked() -> Counter[tuple[str, str]]:
        found = control_plane.audit_log.requests(own.namespace, FIELD_MANAGER)
        return Counter((request.verb, request.resource) for request in found)

    process = start_controller(own.namespace)
    lists = {(("list", r)): 1 for r in ("pods", "jobs", "cronjobs", "sessionpolicies", "sessionrevocations")}
    eventually(lambda: asked() == lists, what="everything is listed once")
    several = [own.ready() for _ in range(5)]
    for policy in several:
        policy.await_event("CronJobCreated")
    made = {
        ("patch", "sessionpolicies/status"): 2 * len(several),  # first sight, and ready
        ("create", "cronjobs"): len(several),
        ("create", "events"): len(several),
    }
    asked_for_making = asked()
    assert {what: n for what, n in asked_for_making.items() if what[0] != "list"} == made

    job = several[0].make_job_by_hand()
    several[0].await_condition("Running", "True")
    kubelet.finish(job, report())
    several[0].await_event("RunSucceeded")
    run = {what: n for what, n in (asked() - asked_for_making).items() if what[0] != "list" or what[1] == "events"}
    assert run == {("patch", "sessionpolicies/status"): 2, ("create", "events"): 1}  # it runs; it has run

    process.stop()
    before = asked()
    process.start()
    eventually(lambda: (asked() - before).total() >= len(lists), what="everything is listed again")
    own.ready()  # by now it has looked at everything
    again = asked() - before
    assert again[("patch", "sessionpolicies/status")] == 2  # those of the new one
    assert again[("create", "cronjobs")] == 1
    assert {what for what in again if what[0] == "get"} == set()


# --- nothing is lost -------------------------------------------------------------------------------------------------


@contextmanager
def refused_status_writes(own: Policies) -> Iterator[None]:
    """An admission policy refuses to have any SessionPolicy's status written."""
    name = f"no-status-{own.namespace}"
    rule = {
        "apiGroups": ["sessionpolicy.dev"],
        "apiVersions": ["*"],
        "operations": ["UPDATE"],
        "resources": ["sessionpolicies/status"],
    }
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "resourceRules": [rule],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": own.namespace}},
            },
            "validations": [{"expression": "false", "message": "not now"}],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }
    own.kubectl.apply(policy)
    own.kubectl.apply(binding)
    try:
        yield
    finally:
        own.kubectl.run("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", name)


def status_is_refused(policy: Policy) -> bool:
    patch = json.dumps([{"op": "test", "path": "/status/observedGeneration", "value": 1}])
    where = ("spol", policy.name, "-n", policy.namespace, "--subresource=status", "--type=json", "--dry-run=server")
    try:
        policy.kubectl.run("patch", *where, "-p", patch)
    except Exception as error:
        return "not now" in str(getattr(error, "stderr", ""))
    return False


@pytest.mark.exhaustive
def test_r1_2_a_run_whose_job_is_deleted_while_the_status_cannot_be_written_is_recorded_with_its_report(
    own: Policies, kubelet: Kubelet, start_controller: StartController
) -> None:
    process = start_controller(own.namespace)
    policy = own.ready()
    job = policy.request_run()
    policy.await_condition("Running", "True")
    with refused_status_writes(own):
        eventually(lambda: status_is_refused(policy), what="the status cannot be written")
        finish(own, kubelet, job, report(message="deleted before it was recorded"))
        eventually(lambda: "not now" in process.log(), what="the controller has tried")
        delete(own, job)
        assert own.kubectl.list("pods", own.namespace) == []
    record = policy.await_record(job)
    assert (record["outcome"], record["message"]) == ("Succeeded", "deleted before it was recorded")
    assert policy.condition("Running") == {}
    assert [reason for reason, _ in policy.events()].count("RunSucceeded") == 1


def test_r1_2_a_run_that_ended_and_was_deleted_while_the_controller_was_frozen_is_recorded(
    own: Policies, kubelet: Kubelet, start_controller: StartController
) -> None:
    process = start_controller(own.namespace)
    policy = own.ready()
    job = policy.request_run()
    policy.await_condition("Running", "True")
    process.freeze()
    try:
        finish(own, kubelet, job, report(message="while it was frozen"))
        delete(own, job)
    finally:
        process.thaw()
    assert policy.await_record(job)["message"] == "while it was frozen"


def test_r1_2_a_run_that_is_deleted_while_no_controller_runs_is_not_shown_as_running(
    own: Policies, kubelet: Kubelet, start_controller: StartController
) -> None:
    # Nothing is left to tell how it went. The run that still has its Job is recorded.
    process = start_controller(own.namespace)
    policy = own.ready()
    lost = policy.request_run()
    policy.await_condition("Running", "True")
    process.stop()
    finish(own, kubelet, lost, report())
    kept = policy.make_job_by_hand()
    finish(own, kubelet, kept, report())
    delete(own, lost)
    process.start()
    policy.await_record(kept)
    policy.await_status(lambda s: "Running" not in {c["type"] for c in s["conditions"]}, "nothing is running")
    assert [record["jobName"] for record in policy.status()["history"]] == [kept]


def test_r1_2_the_report_of_a_pod_that_its_job_s_deadline_deletes_is_recorded(
    own: Policies, kubelet: Kubelet, start_controller: StartController
) -> None:
    start_controller(own.namespace)
    policy = own.ready()
    job = policy.request_run()
    message = report(outcome="Failed", reason="TimeLimit", message="stopped before the deadline")
    pod = kubelet.pod_of(job)
    # The container has ended and said why; the node has not told yet that the Pod has.
    kubelet.terminate(job, message, exit_code=1)
    policy.await_condition("Running", "True")
    own.kubectl.run(
        *("patch", "job", job, "-n", own.namespace, "--type=merge"),
        *("-p", json.dumps({"spec": {"activeDeadlineSeconds": 1}})),
    )
    eventually(lambda: not own.kubectl.exists("pod", pod, own.namespace), what="the Pod is gone")
    record = policy.await_record(job)
    assert (record["reason"], record["message"]) == ("TimeLimit", "stopped before the deadline")


def test_r1_1_all_events_lost_the_resync_heals_everything(
    own: Policies, kubelet: Kubelet, operator_kubeconfig: Path
) -> None:
    with unwatching_controller(operator_kubeconfig, own.namespace, resync_seconds=1):
        policy, edited, drifted, deleted = own.ready(), own.ready(), own.ready(), own.ready()
        job = policy.request_run()
        kubelet.finish(job, report())
        policy.await_record(job)
        edited.apply(schedule="1 2 * * *")
        patch = json.dumps({"spec": {"suspend": True}})
        own.kubectl.run("patch", "cronjob", drifted.name, "-n", own.namespace, "--type=merge", "-p", patch)
        own.kubectl.run("delete", "cronjob", deleted.name, "-n", own.namespace)
        eventually(lambda: edited.cron_job()["spec"]["schedule"] == "1 2 * * *", what="the edit has arrived")
        eventually(lambda: drifted.cron_job()["spec"]["suspend"] is False, what="the drift is put back")
        eventually(deleted.has_cron_job, what="the CronJob is back")
        second = policy.request_run()
        finish(own, kubelet, second, report(message="seen only by lists"))
        eventually(lambda: policy.await_record(second), what="the run is recorded")
        own.kubectl.run("delete", "spol", policy.name, "-n", own.namespace)
        eventually(lambda: not policy.has_cron_job(), what="the deleted policy's CronJob is collected")
        own.ready()  # by now it has looked at everything
        assert not policy.has_cron_job()


# --- decisions while it is behind ------------------------------------------------------------------------------------


@pytest.fixture
def behind(own: Policies, operator_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Tells a controller, which learns of nothing else, what a watch would."""
    monkeypatch.setattr("controller.controller._FIRST_RESYNC_SECONDS", NEVER_AGAIN)
    with unwatching_controller(operator_kubeconfig, own.namespace, resync_seconds=NEVER_AGAIN) as controller:
        yield controller.tell


def annotate(policy: Policy, token: str) -> None:
    where = ("spol", policy.name, "-n", policy.namespace)
    policy.kubectl.run("annotate", *where, f"{RUN_REQUEST_ANNOTATION}={token}", "--overwrite")


def gone(job: dict[str, Any]) -> dict[str, Any]:
    """The Job as the watch tells its deletion: with a later version."""
    version = str(int(job["metadata"]["resourceVersion"]) + 1_000_000)
    return job | {"metadata": job["metadata"] | {"resourceVersion": version}}


def begin(policy: Policy, tell: Callable[..., None]) -> None:
    """The policy is made, and the controller told."""
    policy.apply()
    tell(POLICIES, policy.get())
    policy.await_condition("Ready", "True")


def test_a_policy_that_was_edited_unseen_gets_no_status_of_its_former_spec(
    own: Policies, behind: Callable[..., None]
) -> None:
    policy = own.named()
    policy.apply()
    former = policy.get()
    policy.apply(schedule="1 2 * * *")
    behind(POLICIES, former)  # the status that this leads to is refused, and the policy read
    policy.await_condition("Ready", "True")
    assert policy.status()["observedGeneration"] == 2
    assert policy.cron_job()["spec"]["schedule"] == "1 2 * * *"


def test_a_policy_made_again_unseen_gets_its_own_cron_job(own: Policies, behind: Callable[..., None]) -> None:
    policy = own.named()
    begin(policy, behind)
    own.kubectl.run("delete", "spol", policy.name, "-n", own.namespace)
    policy.apply()
    behind(POLICIES, policy.get())  # of its CronJob the controller believes that it is the former one's
    eventually(lambda: not policy.has_cron_job() or is_own(policy), what="the former CronJob is collected")
    behind(CRON_JOBS, former_cron_job(policy), deleted=True)
    policy.await_condition("Ready", "True")
    assert is_own(policy)


def is_own(policy: Policy) -> bool:
    (owner,) = policy.cron_job()["metadata"]["ownerReferences"]
    found: bool = owner["uid"] == policy.get()["metadata"]["uid"]
    return found


def former_cron_job(policy: Policy) -> dict[str, Any]:
    """The last that a watch tells of the policy's CronJob, which is gone."""
    version = policy.get()["metadata"]["resourceVersion"]
    metadata = {"name": policy.name, "namespace": policy.namespace, "uid": "former", "resourceVersion": version}
    return {"metadata": metadata | {"labels": {POLICY_LABEL: policy.name}}}


def test_a_deleted_policy_gets_no_cron_job_and_is_let_go(
    own: Policies, behind: Callable[..., None], control_plane: ControlPlane
) -> None:
    policy = own.named()
    policy.apply()
    gone = policy.get()
    own.kubectl.run("delete", "spol", policy.name, "-n", own.namespace)
    behind(POLICIES, gone)
    other = own.named()
    begin(other, behind)
    assert not policy.has_cron_job()
    asked = [r for r in control_plane.audit_log.requests(own.namespace, FIELD_MANAGER) if r.name == policy.name]
    assert Counter((r.verb, r.resource) for r in asked) == {
        ("patch", "sessionpolicies/status"): 1,
        ("get", "sessionpolicies"): 1,
        ("get", "cronjobs"): 1,
    }


def test_r1_1_a_cron_job_that_was_made_unseen_is_found_and_put_right(
    own: Policies, behind: Callable[..., None]
) -> None:
    policy = own.named()
    begin(policy, behind)
    cron_job = policy.cron_job()
    # The label is what CronJobs are followed by: without it this one seems deleted.
    own.kubectl.run("label", "cronjob", policy.name, "-n", own.namespace, f"{POLICY_LABEL}-")
    version = policy.cron_job()["metadata"]["resourceVersion"]
    cron_job["metadata"]["resourceVersion"] = version
    behind(CRON_JOBS, cron_job, deleted=True)
    eventually(
        lambda: policy.cron_job()["metadata"].get("labels", {}).get(POLICY_LABEL) == policy.name,
        what="the label is back",
    )
    assert policy.cron_job()["metadata"]["uid"] == cron_job["metadata"]["uid"]
    assert policy.condition("Ready")["status"] == "True"


def test_a_run_requested_while_the_cron_job_was_deleted_unseen_is_not_lost(
    own: Policies, behind: Callable[..., None]
) -> None:
    policy = own.named()
    begin(policy, behind)
    own.kubectl.run("delete", "cronjob", policy.name, "-n", own.namespace)
    annotate(policy, "now")
    behind(POLICIES, policy.get())  # nobody tells of the CronJob
    policy.await_status(lambda s: s.get("lastHandledRunRequest") == "now", "the request is handled")
    (job,) = policy.jobs()
    (owner,) = job["metadata"]["ownerReferences"]
    assert owner["uid"] == policy.cron_job()["metadata"]["uid"]


def test_a_job_that_has_the_name_of_a_requested_run_is_not_taken_for_it(
    own: Policies, behind: Callable[..., None]
) -> None:
    policy = own.named()
    begin(policy, behind)
    annotate(policy, "first")
    behind(POLICIES, policy.get())
    policy.await_status(lambda s: s.get("lastHandledRunRequest") == "first", "the request is handled")
    (job,) = policy.jobs()
    name = job["metadata"]["name"]
    delete(own, name)
    behind(JOBS, gone(job), deleted=True)
    stranger = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": job["spec"]}
    stranger["spec"] = {"template": {"spec": job["spec"]["template"]["spec"]}}
    own.kubectl.apply(stranger, own.namespace)
    # As if the request had not been handled: the run's name is the same.
    where = ("patch", "spol", policy.name, "-n", own.namespace, "--subresource=status", "--type=json", "-p")
    own.kubectl.run(*where, json.dumps([{"op": "remove", "path": "/status/lastHandledRunRequest"}]))
    annotate(policy, "other")
    behind(POLICIES, policy.get())
    policy.await_status(lambda s: s.get("lastHandledRunRequest") == "other", "another run is made")
    (other,) = (found for found in policy.jobs() if found["metadata"]["name"] != name)
    delete(own, other["metadata"]["name"])
    behind(JOBS, gone(other), deleted=True)
    own.kubectl.run(*where, json.dumps([{"op": "remove", "path": "/status/lastHandledRunRequest"}]))
    annotate(policy, "first")
    behind(POLICIES, policy.get())
    assert name in policy.await_event("RunBlocked")
    assert "lastHandledRunRequest" not in policy.status()


def test_r1_2_a_job_that_is_seen_to_end_before_its_pod_is_judged_by_the_pod(
    own: Policies, kubelet: Kubelet, behind: Callable[..., None], api: Api
) -> None:
    policy = own.named()
    begin(policy, behind)
    annotate(policy, "now")
    behind(POLICIES, policy.get())
    policy.await_status(lambda s: s.get("lastHandledRunRequest") == "now", "the request is handled")
    (job,) = policy.jobs()
    name = job["metadata"]["name"]
    pod = api.get("pods", own.namespace, kubelet.pod_of(name))
    assert pod is not None
    behind(PODS, pod)
    finish(own, kubelet, name, report(message="told by the Pod"))
    finished = api.get("jobs", own.namespace, name)
    assert finished is not None
    behind(JOBS, finished)
    assert policy.await_record(name)["message"] == "told by the Pod"


def test_a_foreign_cron_job_without_the_label_is_left_alone(own: Policies, behind: Callable[..., None]) -> None:
    policy = own.named()
    pod_spec = {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}
    foreign = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": policy.cron_job_name},
        "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": {"spec": pod_spec}}}},
    }
    own.kubectl.apply(foreign, own.namespace)
    before = policy.cron_job()
    own.kubectl.apply(manifest(policy.name), own.namespace)
    behind(POLICIES, policy.get())
    policy.await_condition("Ready", "False", "NotOwned")
    assert policy.cron_job() == before


def test_a_deleted_job_that_only_bears_the_label_is_neither_recorded_nor_kept(
    own: Policies, operator_kubeconfig: Path
) -> None:
    with unwatching_controller(operator_kubeconfig, own.namespace, resync_seconds=NEVER_AGAIN) as controller:
        policy = own.named()
        begin(policy, controller.tell)
        forged = finished_job(ended="Complete")
        forged["metadata"] |= {"namespace": own.namespace, "labels": {POLICY_LABEL: policy.name}}
        forged["metadata"]["resourceVersion"] = policy.get()["metadata"]["resourceVersion"]
        controller.tell(JOBS, forged, deleted=True)
        assert controller.deleted_jobs(own.namespace, policy.name) == 1
        eventually(lambda: controller.deleted_jobs(own.namespace, policy.name) == 0, what="it is let go")
        assert not policy.status().get("history")
