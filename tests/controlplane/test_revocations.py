"""R3.6 as a resource: SessionRevocations on a real API server. The kubelet is played by the test."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio import client, config

from controller.api.kube import Kube, Resource
from controller.revocation.revocation_reconciler import RevocationReconciler
from controller.settings.controller_settings import Settings
from policy.manifest import InvalidRevocationError, parse_revocation, parse_target
from policy.names import REVOCATION_LABEL
from tests.controlplane.conftest import StartController
from tests.controlplane.controller_process import ControllerProcess
from tests.controlplane.kubelet import Kubelet
from tests.controlplane.kubelet import report as run_report
from tests.controlplane.policies import Policies
from tests.controlplane.revocations import CANARY, USER, Revocation, manifest, report
from tests.support.kube import Kubectl, eventually

Revoke = Callable[..., Revocation]


@pytest.fixture
def kubelet(policies: Policies) -> Kubelet:
    return Kubelet(policies.kubectl, policies.namespace)


@pytest.fixture
def revoke(policies: Policies) -> Revoke:
    def make(policy: str, **spec: Any) -> Revocation:
        return Revocation(policies.kubectl, policies.namespace, policy, **spec).apply()

    return make


# --- the usual course ------------------------------------------------------------------------------------------------


def test_r3_6_applied_it_runs_once_and_tells_how_many_went(
    policies: Policies, kubelet: Kubelet, revoke: Revoke
) -> None:
    policy = policies.ready(suspend=True)  # runs may rest; a user must still be logged out
    revocation = revoke(policy.name)
    job = revocation.await_job()
    assert revocation.conditions()["Reconciling"][0] == "True"
    (container,) = revocation.jobs()[0]["spec"]["template"]["spec"]["containers"]
    told = {v["name"]: v.get("value") for v in container["env"]}
    assert container["args"] == ["revoke"]
    assert parse_target(told["SESSION_POLICY_REVOCATION"]).user == USER
    kubelet.finish(job, report(found=3, revoked=3, databaseRows=2, redisKeys=3))
    revocation.wait("condition=Complete")
    status = revocation.status()
    assert status["sessions"] == {"found": 3, "revoked": 3, "left": 0, "databaseRows": 2, "redisKeys": 3}
    assert status["observedGeneration"] == revocation.get()["metadata"]["generation"]
    assert status["jobUID"] == revocation.jobs()[0]["metadata"]["uid"]
    assert status["completionTime"] >= status["startTime"]
    assert revocation.conditions() == {"Complete": ("True", "Revoked")}
    eventually(
        lambda: sorted(r for r, _ in revocation.events()) == ["JobCreated", "Revoked"], what="its Events are there"
    )


def test_kubectl_shows_the_state_and_never_the_user(policies: Policies, kubelet: Kubelet, revoke: Revoke) -> None:
    revocation = revoke(policies.ready().name)
    kubelet.finish(revocation.await_job(), report(found=7, revoked=7))
    revocation.wait("condition=Complete")
    for wide in ([], ["-o", "wide"]):
        header, line = revocation.kubectl.run(
            "get", "srev", revocation.name, "-n", revocation.namespace, *wide
        ).splitlines()
        assert header.split()[:6] == ["NAME", "POLICY", "COMPLETE", "STATUS", "REVOKED", "AGE"]
        assert line.split()[2:5] == ["True", "Revoked", "7"]
        assert USER not in line


def test_a_policy_s_history_has_only_its_own_runs(policies: Policies, kubelet: Kubelet, revoke: Revoke) -> None:
    policy = policies.ready()
    revocation = revoke(policy.name)
    kubelet.finish(revocation.await_job(), run_report(message="forged"))  # a report of a run is no report here
    revocation.wait("condition=Failed")
    assert revocation.conditions()["Complete"] == ("False", "NoReport")
    job = policy.request_run()
    kubelet.finish(job, run_report())
    policy.await_record(job)
    assert [record["jobName"] for record in policy.status()["history"]] == [job]


def test_r3_6_one_session_is_named_by_its_hash(policies: Policies, kubelet: Kubelet, revoke: Revoke) -> None:
    source = {"secretKeyRef": {"name": "hash", "key": "key"}}
    policy = policies.ready(logs={"hashKeyFrom": source})
    revocation = revoke(policy.name, sessionHash="s:" + "0a" * 10)
    job = revocation.await_job()
    (container,) = revocation.jobs()[0]["spec"]["template"]["spec"]["containers"]
    variables = {v["name"]: v.get("value", v.get("valueFrom")) for v in container["env"]}
    assert json.loads(variables["SESSION_POLICY_REVOCATION"]) == {"sessionHash": "s:" + "0a" * 10}
    assert variables["LOG_HASH_KEY"] == source
    kubelet.finish(job, report("NoSessions"))
    revocation.await_state("True", "NoSessions")


def test_r6_the_policy_s_dry_run_is_told(policies: Policies, kubelet: Kubelet, revoke: Revoke) -> None:
    revocation = revoke(policies.ready(dryRun=True).name)
    kubelet.finish(revocation.await_job(), report("DryRun", dry_run=True, found=2))
    assert revocation.await_state("True", "DryRun")["dryRun"] is True
    assert "2 sessions would be revoked" in revocation.message()


# --- what is accepted ------------------------------------------------------------------------------------------------

HASH = "s:" + "0a" * 10
CASES: dict[str, tuple[bool, dict[str, Any]]] = {
    "a user": (True, {"user": "ann"}),
    "a hash": (True, {"sessionHash": HASH}),
    "everything": (True, {"user": "ann", "reason": "ticket", "ttlSecondsAfterFinished": 0}),
    "neither": (False, {}),
    "both": (False, {"user": "ann", "sessionHash": HASH}),
    "an empty user": (False, {"user": ""}),
    "a long user": (False, {"user": "x" * 257}),
    "the longest user": (True, {"user": "é" * 256}),
    "an empty user and a hash": (False, {"user": "", "sessionHash": HASH}),
    "a bare hash": (False, {"sessionHash": HASH.removeprefix("s:")}),
    "a user's hash": (False, {"sessionHash": "u:" + "0a" * 10}),
    "half a hash": (False, {"sessionHash": HASH[:12]}),
    "a hash and a line": (False, {"sessionHash": HASH + "\n"}),
    "no policy": (False, {"user": "ann", "policyName": ""}),
    "negative time": (False, {"user": "ann", "ttlSecondsAfterFinished": -1}),
    "a number for a user": (False, {"user": 1042}),
    "unknown field": (False, {"user": "ann", "image": "evil"}),
}


@pytest.mark.representative(4)
@pytest.mark.parametrize(("expected", "spec"), CASES.values(), ids=CASES.keys())
def test_server_and_models_judge_alike(cluster: Kubectl, expected: bool, spec: dict[str, Any]) -> None:
    document = manifest("judged", policyName="shop")
    document["spec"] = {"policyName": "shop", **spec}
    try:
        parse_revocation(document)
        accepted = True
    except InvalidRevocationError:
        accepted = False
    try:
        cluster.run(
            *("create", "--dry-run=server", "--validate=strict", "-n", "default", "-f", "-"), stdin=json.dumps(document)
        )
        served = True
    except subprocess.CalledProcessError as refused:
        assert "invalid" in str(refused.__notes__).lower() or "unknown field" in str(refused.__notes__), (
            refused.__notes__
        )
        served = False
    assert (accepted, served) == (expected, expected)


@pytest.mark.representative(1)
@pytest.mark.parametrize("changed", [{"user": "bob"}, {"policyName": "other"}, {"ttlSecondsAfterFinished": 1},
                                     {"reason": "another"}], ids=str)  # fmt: skip
def test_the_spec_cannot_be_changed(cluster: Kubectl, namespace: str, changed: dict[str, Any]) -> None:
    revocation = Revocation(cluster, namespace, "shop", reason="one").apply()
    with pytest.raises(subprocess.CalledProcessError) as refused:
        cluster.run(
            *("patch", "srev", revocation.name, "-n", namespace, "--type=merge", "-p", json.dumps({"spec": changed}))
        )
    assert "the spec cannot be changed" in str(refused.value.__notes__)
    revocation.apply()  # the same again is fine


# --- what stands in the way ------------------------------------------------------------------------------------------


def test_a_policy_that_is_missing_is_waited_for(policies: Policies, kubelet: Kubelet, revoke: Revoke) -> None:
    policy = policies.named()
    revocation = revoke(policy.name)
    revocation.await_state("False", "PolicyNotFound")
    assert policy.name in revocation.message()
    assert (revocation.jobs(), "Stalled" in revocation.conditions()) == ([], False)
    policy.apply()
    kubelet.finish(revocation.await_job(), report(revoked=1))
    revocation.await_state("True", "Revoked")


def test_a_policy_that_cannot_be_used_is_waited_for(policies: Policies, kubelet: Kubelet, revoke: Revoke) -> None:
    policy = policies.named()
    policy.apply(job={"resources": {"limits": {"cpu": "1e1.5"}}})
    revocation = revoke(policy.name)
    revocation.await_state("False", "InvalidPolicy")
    assert "spec.job.resources" in revocation.message()
    policy.apply()
    kubelet.finish(revocation.await_job(), report(revoked=1))
    revocation.await_state("True", "Revoked")


def test_a_quota_on_jobs_is_told(cluster: Kubectl, namespace: str, start_controller: StartController) -> None:
    start_controller(namespace)
    own = Policies(cluster, namespace)
    policy = own.ready()
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "no-jobs"},
        "spec": {"hard": {"count/jobs.batch": "0"}},
    }
    cluster.apply(quota, namespace)
    eventually(lambda: "hard" in cluster.get("quota", "no-jobs", namespace).get("status", {}), what="the quota holds")
    revocation = Revocation(cluster, namespace, policy.name).apply()
    revocation.await_state("False", "JobRefused")
    assert "exceeded quota" in revocation.message()


def test_an_image_that_cannot_be_pulled_is_told_while_it_lasts(
    policies: Policies, kubelet: Kubelet, revoke: Revoke
) -> None:
    revocation = revoke(policies.ready().name)
    job = revocation.await_job()
    kubelet.wait(job, "ImagePullBackOff", "back-off")
    revocation.await_state("False", "ImagePullBackOff")
    assert revocation.conditions()["Stalled"] == ("True", "ImagePullBackOff")
    assert "Reconciling" not in revocation.conditions()
    kubelet.finish(job, report(revoked=1))
    revocation.await_state("True", "Revoked")


@pytest.mark.exhaustive
def test_bad_configuration_ends_it_and_another_failure_is_tried_again(
    policies: Policies, kubelet: Kubelet, revoke: Revoke
) -> None:
    policy = policies.ready()
    revocation = revoke(policy.name)
    kubelet.finish(revocation.await_job(), report("InvalidConfiguration"), exit_code=2)
    revocation.wait("condition=Failed")
    assert revocation.conditions()["Complete"] == ("False", "InvalidConfiguration")
    retried = revoke(policy.name)
    job = retried.await_job()
    first = kubelet.finish(job, report("SessionsInUse", revoked=2, left=1), exit_code=1)
    kubelet.pod_of(job, other_than=first)
    kubelet.finish(job, report(revoked=1))
    assert retried.await_state("True", "Revoked")["sessions"]["revoked"] == 3


# --- once ------------------------------------------------------------------------------------------------------------


def test_a_job_that_is_deleted_is_not_made_again(policies: Policies, revoke: Revoke) -> None:
    revocation = revoke(policies.ready().name)
    job = revocation.await_job()
    uid = revocation.status()["jobUID"]
    revocation.kubectl.run("delete", "job", job, "-n", revocation.namespace)
    status = revocation.await_state("False", "JobGone")
    assert (status["jobUID"], revocation.jobs()) == (uid, [])
    assert revocation.conditions()["Failed"] == ("True", "JobGone")


@pytest.mark.exhaustive
def test_after_its_end_nothing_starts_it_again(
    cluster: Kubectl, namespace: str, start_controller: StartController
) -> None:
    process = start_controller(namespace)
    own, kubelet = Policies(cluster, namespace), Kubelet(cluster, namespace)
    policy = own.ready()
    revocation = Revocation(cluster, namespace, policy.name).apply()
    job = revocation.await_job()
    process.stop()
    kubelet.finish(job, report(revoked=2))
    eventually(lambda: revocation.jobs()[0]["status"].get("succeeded"), what="the Job is complete")
    assert "sessions" not in revocation.status()
    process.start()
    status = revocation.await_state("True", "Revoked")
    process.stop()
    cluster.run("delete", "job", job, "-n", namespace)
    process.start()
    policy.apply(suspend=True)
    own.ready()  # by now it has looked at everything
    assert (revocation.status(), revocation.jobs()) == (status, [])


@pytest.mark.exhaustive
def test_killed_at_any_point_each_runs_once_and_is_recorded(
    cluster: Kubectl, namespace: str, start_controller: StartController
) -> None:
    process = start_controller(namespace)
    own, kubelet = Policies(cluster, namespace), Kubelet(cluster, namespace)
    policy = own.ready()
    chance = random.Random(20260306)
    seen: dict[str, set[str]] = {}
    revocations = []
    for _ in range(8):
        revocations.append(Revocation(cluster, namespace, policy.name).apply())
        # Anywhere between start-up, the making of the Job, its UID in the status, and its start.
        process.kill_after(chance.uniform(0.5, 1.6))
        for revocation in revocations:
            started = {j["metadata"]["uid"] for j in revocation.jobs() if not j["spec"]["suspend"]}
            seen.setdefault(revocation.name, set()).update(started)
            assert started <= {revocation.status().get("jobUID")}  # none starts that is not written down
    process.start()
    # All of them, for on a slow machine none of the next processes may come far enough to start one.
    jobs = [revocation.await_job() for revocation in revocations]
    for job in jobs:
        kubelet.finish(job, report(revoked=1))
        process.kill_after(chance.uniform(0.5, 1.6))
    process.start()
    for revocation in revocations:
        status = revocation.await_state("True", "Revoked")
        (made,) = revocation.jobs()
        assert {*seen[revocation.name], made["metadata"]["uid"]} == {status["jobUID"]}
        assert status["sessions"]["revoked"] == 1


class Killed(BaseException):
    """Not an Exception: nothing may catch it, as nothing can catch SIGKILL."""


class DyingKube(Kube):
    """A connection whose process dies before, or right after, the n-th request."""

    def __init__(self, api: client.ApiClient, requests: int, *, after: bool) -> None:
        super().__init__(api)
        self._left, self._after = requests, after

    async def _request(self, *arguments: Any, **options: Any) -> Resource:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Killed
        answer = await super()._request(*arguments, **options)
        if self._left == 0:
            raise Killed
        return answer


@pytest.mark.exhaustive
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_whichever_request_it_dies_at_no_job_starts_that_is_not_written_down(
    cluster: Kubectl, operator_kubeconfig: Path, namespace: str, after: bool
) -> None:
    own = Policies(cluster, namespace)
    policy = own.named()
    policy.apply()
    revocation = Revocation(cluster, namespace, policy.name).apply()

    async def reconcile(requests: int) -> None:
        configuration = client.Configuration()
        configuration.disable_strict_ssl_verification = True
        await config.load_kube_config(config_file=str(operator_kubeconfig), client_configuration=configuration)
        async with client.ApiClient(configuration) as api:
            api.user_agent = "test"
            kube = DyingKube(api, requests, after=after)
            await RevocationReconciler(kube, Settings(job_image="x")).reconcile(namespace, revocation.name)

    deaths = 0
    for requests in count(1):
        try:
            asyncio.run(reconcile(requests))
            break
        except Killed:
            deaths += 1
        started = {j["metadata"]["uid"] for j in revocation.jobs() if not j["spec"]["suspend"]}
        assert started <= {revocation.status().get("jobUID")}
    assert deaths > 3
    (job,) = revocation.jobs()
    assert (job["spec"]["suspend"], job["metadata"]["uid"]) == (False, revocation.status()["jobUID"])


# --- its end ---------------------------------------------------------------------------------------------------------


def test_when_its_time_is_over_it_goes_with_its_job_and_not_before(
    policies: Policies, kubelet: Kubelet, revoke: Revoke
) -> None:
    policy = policies.ready()
    short, long = revoke(policy.name, ttlSecondsAfterFinished=2), revoke(policy.name)
    selector = f"{REVOCATION_LABEL}={short.get()['metadata']['uid']}"
    for revocation in (short, long):
        kubelet.finish(revocation.await_job(), report(revoked=1))
    long.await_state("True", "Revoked")
    eventually(lambda: short.find() is None, what="it is deleted")
    for kind in ("jobs", "pods"):
        left = lambda kind=kind: short.api.list(kind, short.namespace, selector)  # noqa: E731
        eventually(lambda left=left: not left(), what=f"its {kind} are deleted")  # type: ignore[misc]
    assert len(long.jobs()) == 1


@pytest.mark.exhaustive
def test_its_time_runs_while_the_controller_is_down(
    cluster: Kubectl, namespace: str, start_controller: StartController
) -> None:
    process = start_controller(namespace)
    policy = Policies(cluster, namespace).ready()
    revocation = Revocation(cluster, namespace, policy.name, ttlSecondsAfterFinished=3).apply()
    Kubelet(cluster, namespace).finish(revocation.await_job(), report(revoked=1))
    revocation.wait("condition=Complete")
    process.kill()
    process.start()
    eventually(lambda: revocation.find() is None, what="it is deleted")


# --- what is told of whom --------------------------------------------------------------------------------------------


def test_r2_the_user_stands_in_the_spec_and_in_the_container_s_variable_and_nowhere_else(
    policies: Policies, kubelet: Kubelet, revoke: Revoke, controller: ControllerProcess
) -> None:
    policy = policies.ready()
    done, failed, missing = revoke(policy.name), revoke(policy.name), revoke("no-such-policy", reason=CANARY)
    kubelet.finish(done.await_job(), report(revoked=1))
    hostile = json.dumps({"reason": "Oops", "message": f"{USER} is unknown"})
    kubelet.finish(failed.await_job(), hostile, exit_code=2)
    done.await_state("True", "Revoked")
    failed.await_state("False", "Oops")
    missing.await_state("False", "PolicyNotFound")
    for revocation in (done, failed, missing):
        eventually(revocation.events, what="there is an Event")
        for job in revocation.jobs():
            (container,) = job["spec"]["template"]["spec"]["containers"]
            container["env"] = [v for v in container["env"] if v["name"] != "SESSION_POLICY_REVOCATION"]
            assert CANARY not in json.dumps(job)
        assert CANARY not in json.dumps([revocation.status(), revocation.events()])
    assert CANARY not in json.dumps(policy.get())
    assert CANARY not in controller.log()
