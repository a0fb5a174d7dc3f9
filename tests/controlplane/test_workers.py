"""A run that several Pods share: the real Job controller makes and counts them, the test plays their kubelet."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controlplane.kubelet import Kubelet, report
from tests.controlplane.policies import Policies, Policy
from tests.support.kube import eventually


@pytest.fixture
def kubelet(policies: Policies) -> Kubelet:
    return Kubelet(policies.kubectl, policies.namespace)


def shared(policies: Policies, *, retries: int = 0, parallelism: int = 2) -> Policy:
    return policies.ready(job={"retries": retries, "parallelism": parallelism})


def pods_of(policies: Policies, job: str) -> list[dict[str, Any]]:
    return policies.kubectl.list("pods", policies.namespace, f"batch.kubernetes.io/job-name={job}")


def is_complete(policies: Policies, job: str) -> bool:
    (found,) = [j for j in policies.kubectl.list("jobs", policies.namespace) if j["metadata"]["name"] == job]
    return any(c["type"] == "Complete" and c["status"] == "True" for c in found["status"].get("conditions", []))


def test_r6_the_job_has_as_many_pods_as_the_policy_says_each_with_an_index(
    policies: Policies, kubelet: Kubelet
) -> None:
    policy = shared(policies, parallelism=3)
    job = policy.request_run()
    for index in range(3):
        kubelet.pod_of(job, index=index)
    assert len(pods_of(policies, job)) == 3


def test_r6_the_outcome_is_the_leader_s_and_recorded_once(policies: Policies, kubelet: Kubelet) -> None:
    policy = shared(policies)
    job = policy.request_run()
    # It ends later than the leader's would, and lies: nothing of it may be believed.
    kubelet.finish(job, report(sessions={"deleted": 999}, message="from a helper"), index=1)
    kubelet.finish(job, report(), index=0)
    record = policy.await_record(job)
    assert (record["outcome"], record["sessions"]["deleted"]) == ("Succeeded", 3)
    assert [r["jobName"] for r in policy.status()["history"]] == [job]
    assert "from a helper" not in str(policy.get())
    assert [reason for reason, _ in policy.events()].count("RunSucceeded") == 1


def test_r6_the_run_is_over_when_the_leader_has_succeeded(policies: Policies, kubelet: Kubelet) -> None:
    policy = shared(policies, parallelism=3)
    job = policy.request_run()
    helper = kubelet.pod_of(job, index=1)
    kubelet.finish(job, report(), index=0)
    assert policy.await_record(job)["outcome"] == "Succeeded"
    # Nobody waits for Pods that found no node, or no image.
    eventually(lambda: is_complete(policies, job), what="the Job is complete")
    assert helper not in {pod["metadata"]["name"] for pod in pods_of(policies, job)}


@pytest.mark.representative(1)
@pytest.mark.parametrize("retries", [0, 1])
def test_r6_a_helper_that_fails_does_not_fail_the_run(policies: Policies, kubelet: Kubelet, retries: int) -> None:
    policy = shared(policies, retries=retries)
    job = policy.request_run()
    lie = report(outcome="Failed", reason="Helper", message="from a helper")
    kubelet.finish(job, lie, exit_code=1, index=1)
    kubelet.finish(job, report(), index=0)
    record = policy.await_record(job)
    assert (record["outcome"], record["reason"]) == ("Succeeded", "Completed")
    assert policy.condition("LastRunSucceeded")["status"] == "True"


@pytest.mark.exhaustive
def test_r6_a_leader_that_fails_is_tried_again_and_fails_the_run_in_the_end(
    policies: Policies, kubelet: Kubelet
) -> None:
    policy = shared(policies, retries=1)
    job = policy.request_run()
    kubelet.finish(job, "", index=1)
    first = kubelet.finish(job, report(outcome="Failed", reason="First"), exit_code=1, index=0)
    kubelet.pod_of(job, index=0, other_than=first)
    kubelet.finish(job, report(outcome="Failed", reason="Second"), exit_code=1, index=0)
    record = policy.await_record(job)
    assert (record["outcome"], record["reason"]) == ("Failed", "Second")


def test_r6_bad_configuration_fails_a_shared_run_at_once(policies: Policies, kubelet: Kubelet) -> None:
    policy = shared(policies, retries=5)
    job = policy.request_run()
    kubelet.pod_of(job, index=1)
    kubelet.finish(job, report(outcome="Failed", reason="InvalidURL", message="no URL"), exit_code=2, index=0)
    assert policy.await_record(job)["reason"] == "InvalidURL"
    assert [pod["status"]["phase"] for pod in pods_of(policies, job)] == ["Failed"]


def test_r6_a_helper_that_cannot_start_stalls_the_policy_until_the_run_is_over(
    policies: Policies, kubelet: Kubelet
) -> None:
    policy = shared(policies)
    job = policy.request_run()
    pod = kubelet.wait(job, "ErrImagePull", "not found", index=1)
    assert pod in policy.await_condition("Stalled", "True", "ImagePullBackOff")["message"]
    kubelet.finish(job, report(), index=0)
    assert policy.await_record(job)["outcome"] == "Succeeded"
    policy.await_status(lambda s: "Stalled" not in {c["type"] for c in s["conditions"]}, "not stalled any more")


def test_r6_a_secret_that_is_missing_is_told_by_the_leader_s_pod_first(policies: Policies, kubelet: Kubelet) -> None:
    policy = shared(policies)
    job = policy.request_run()
    kubelet.wait(job, "ErrImagePull", "not found", index=1)
    leader = kubelet.wait(job, "CreateContainerConfigError", 'secret "stores" not found', index=0)
    assert leader in policy.await_condition("Stalled", "True", "CreateContainerConfigError")["message"]


def test_r1_1_another_number_of_workers_is_put_back(policies: Policies) -> None:
    policy = shared(policies)
    change = '{"spec": {"jobTemplate": {"spec": {"parallelism": 9, "completions": 9}}}}'
    where = ("cronjob", policy.cron_job_name, "-n", policies.namespace)
    policies.kubectl.run("patch", *where, "--type=merge", "-p", change)

    def numbers() -> tuple[int, int]:
        job = policy.cron_job()["spec"]["jobTemplate"]["spec"]
        return job["parallelism"], job["completions"]

    eventually(lambda: numbers() == (2, 2), what="the CronJob is put back")


def test_r1_1_a_policy_that_is_no_longer_shared_has_a_plain_job_again(policies: Policies, kubelet: Kubelet) -> None:
    policy = shared(policies)
    policy.apply(job={"retries": 0})
    policy.await_ready()
    eventually(
        lambda: policy.cron_job()["spec"]["jobTemplate"]["spec"].get("completionMode") != "Indexed",
        what="the CronJob is a plain one",
    )
    job = policy.request_run()
    kubelet.finish(job, report())
    assert policy.await_record(job)["outcome"] == "Succeeded"
