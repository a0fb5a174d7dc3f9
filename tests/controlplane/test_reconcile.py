"""From a policy to its CronJob, and back when somebody else changes it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio import client, config

from controller.api.kube import Kube, NotFoundError
from controller.manifests.drift import foreign_managers
from policy.names import POLICY_LABEL
from tests.controlplane.controller_process import JOB_IMAGE
from tests.controlplane.policies import Policies, Policy, manifest
from tests.support.kube import Kubectl, eventually


def pod_spec(cron_job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def patch(policy: Policy, *operations: dict[str, Any]) -> None:
    """Change the CronJob by hand."""
    where = ("cronjob", policy.cron_job_name, "-n", policy.namespace)
    policy.kubectl.run("patch", *where, "--type=json", "-p", json.dumps(operations))


def await_put_back(policy: Policy, spec: dict[str, Any]) -> None:
    eventually(
        lambda: policy.cron_job()["spec"] == spec and not foreign_managers(policy.cron_job()),
        what="the CronJob is as it was",
    )


def test_r1_1_a_policy_becomes_a_cron_job_of_its_own(policies: Policies) -> None:
    policy = policies.named()
    policy.apply(schedule="50 * * * *", timeZone="Europe/Berlin")
    # As a user waits for it.
    policy.kubectl.run("wait", f"spol/{policy.name}", "-n", policy.namespace, "--for=condition=Ready", "--timeout=240s")
    cron_job = policy.cron_job()
    assert cron_job["spec"]["schedule"] == "50 * * * *"
    assert pod_spec(cron_job)["containers"][0]["image"] == JOB_IMAGE
    (owner,) = cron_job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("SessionPolicy", policy.get()["metadata"]["uid"])
    status = policy.status()
    assert status["cronJobName"] == policy.name
    assert status["observedGeneration"] == 1
    assert status["nextScheduleTime"].endswith(":50:00Z")
    assert policy.await_event("CronJobCreated")


def test_the_cron_job_s_pods_pass_pod_security_restricted(policies: Policies) -> None:
    policy = policies.ready()
    template = policy.cron_job()["spec"]["jobTemplate"]["spec"]["template"]
    with policies.kubectl.temporary_namespace("restricted") as namespace:
        policies.kubectl.run("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": template["spec"]}
        eventually(
            lambda: policies.kubectl.exists("serviceaccount", "default", namespace), what="the default service account"
        )
        policies.kubectl.run("create", "--dry-run=server", "-n", namespace, "-f", "-", stdin=json.dumps(pod))


@pytest.mark.representative(2)
@pytest.mark.parametrize(
    ("spec", "path", "expected"),
    [
        ({"schedule": "5 4 * * *"}, ("spec", "schedule"), "5 4 * * *"),
        ({"timeZone": "Asia/Seoul"}, ("spec", "timeZone"), "Asia/Seoul"),
        ({"suspend": True}, ("spec", "suspend"), True),
        ({"job": {"retries": 4}}, ("spec", "jobTemplate", "spec", "backoffLimit"), 4),
        (
            {"job": {"nodeSelector": {"disk": "ssd"}}},
            ("spec", "jobTemplate", "spec", "template", "spec", "nodeSelector"),
            {"disk": "ssd"},
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) and value else None,
)
def test_r1_1_an_edited_policy_edits_its_cron_job_and_back(
    policies: Policies, spec: dict[str, Any], path: tuple[str, ...], expected: object
) -> None:
    policy = policies.ready()
    original = policy.cron_job()["spec"]

    def value() -> object:
        found: Any = policy.cron_job()
        for key in path:
            found = found.get(key, {})
        return found

    policy.apply(**spec)
    eventually(lambda: value() == expected, what=f"{path[-1]} is {expected}")
    policy.apply()
    eventually(
        lambda: _apart_from_generation(policy.cron_job()["spec"]) == _apart_from_generation(original), what="as it was"
    )
    assert policy.await_condition("Ready", "True")


def test_everything_that_a_policy_says_reaches_the_container_and_what_it_no_longer_says_goes(
    policies: Policies,
) -> None:
    policy = policies.ready(
        dryRun=True,
        job={
            "tolerations": [{"key": "batch", "operator": "Exists"}],
            "resources": {"limits": {"cpu": "0.5"}},
            "nodeSelector": {"a": "b"},
        },
    )
    spec = pod_spec(policy.cron_job())
    assert spec["containers"][0]["resources"]["limits"] == {"cpu": "500m", "memory": "200Mi"}
    assert json.loads(spec["containers"][0]["env"][0]["value"])["spec"]["dryRun"] is True
    policy.apply()
    policy.await_condition("Ready", "True")
    spec = pod_spec(policy.cron_job())
    assert not {"nodeSelector", "tolerations"} & spec.keys()
    assert spec["containers"][0]["resources"]["limits"]["cpu"] == "150m"
    assert json.loads(spec["containers"][0]["env"][0]["value"])["spec"]["dryRun"] is False


POD = "/spec/jobTemplate/spec/template/spec"
DRIFT: dict[str, list[dict[str, Any]]] = {
    "schedule": [{"op": "replace", "path": "/spec/schedule", "value": "1 1 1 1 1"}],
    "suspend": [{"op": "replace", "path": "/spec/suspend", "value": True}],
    "concurrency": [{"op": "replace", "path": "/spec/concurrencyPolicy", "value": "Allow"}],
    "history": [{"op": "replace", "path": "/spec/failedJobsHistoryLimit", "value": 0}],
    "image": [{"op": "replace", "path": f"{POD}/containers/0/image", "value": "evil"}],
    "added variable": [{"op": "add", "path": f"{POD}/containers/0/env/-", "value": {"name": "X", "value": "1"}}],
    "removed variable": [{"op": "remove", "path": f"{POD}/containers/0/env/2"}],
    "added container": [{"op": "add", "path": f"{POD}/containers/-", "value": {"name": "evil", "image": "evil"}}],
    "added field": [{"op": "add", "path": f"{POD}/hostNetwork", "value": True}],
    "added service account": [{"op": "add", "path": f"{POD}/serviceAccountName", "value": "admin"}],
    "added volume": [{"op": "add", "path": f"{POD}/volumes", "value": [{"name": "v", "hostPath": {"path": "/"}}]}],
    "added annotation": [
        {"op": "add", "path": "/spec/jobTemplate/spec/template/metadata/annotations", "value": {"x": "y"}}
    ],
    "removed policy": [{"op": "remove", "path": "/spec/jobTemplate/spec/podFailurePolicy"}],
    "weakened security": [
        {"op": "remove", "path": f"{POD}/containers/0/securityContext"},
        {"op": "replace", "path": f"{POD}/securityContext", "value": {"runAsUser": 0}},
    ],
}


def test_r1_1_whatever_is_changed_by_hand_is_put_back(policies: Policies) -> None:
    policy = policies.ready()
    spec = policy.cron_job()["spec"]
    for name, operations in DRIFT.items():
        patch(policy, *operations)
        try:
            await_put_back(policy, spec)
        except AssertionError as error:
            error.add_note(f"after the change of: {name}")
            raise
    assert "kubectl-patch" in policy.await_event("DriftCorrected")


def test_r1_1_all_changes_at_once_and_by_server_side_apply_are_put_back(policies: Policies) -> None:
    policy = policies.ready()
    cron_job = policy.cron_job()
    patch(policy, *DRIFT["added container"], *DRIFT["added field"], *DRIFT["schedule"], *DRIFT["added volume"])
    fields = {"volumes": [{"name": "w", "emptyDir": {}}], "initContainers": [{"name": "i", "image": "i"}]}
    applied = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": policy.cron_job_name},
        "spec": {"jobTemplate": {"spec": {"template": {"spec": fields}}}},
    }
    where = ("--server-side", "--field-manager=another-tool", "-n", policy.namespace)
    policies.kubectl.run("apply", *where, "-f", "-", stdin=json.dumps(applied))
    await_put_back(policy, cron_job["spec"])
    assert policy.cron_job()["metadata"]["uid"] == cron_job["metadata"]["uid"]


def test_a_label_that_leads_to_the_policy_is_put_back_and_others_labels_are_left(policies: Policies) -> None:
    policy = policies.ready()
    where = ("cronjob", policy.cron_job_name, "-n", policy.namespace)
    policies.kubectl.run("label", *where, f"{POLICY_LABEL}-", "team=shop")
    eventually(
        lambda: policy.cron_job()["metadata"]["labels"].get(POLICY_LABEL) == policy.name, what="the label is back"
    )
    assert policy.cron_job()["metadata"]["labels"]["team"] == "shop"


def test_nothing_is_written_while_nothing_changes(policies: Policies) -> None:
    policy = policies.ready()
    before = policy.get()["metadata"]["resourceVersion"]
    # A foreign label makes the controller look; another policy's readiness shows that it has had the time to.
    policies.kubectl.run("label", "cronjob", policy.cron_job_name, "-n", policy.namespace, "team=shop")
    labelled = policy.cron_job()["metadata"]["resourceVersion"]
    policies.ready()
    assert policy.get()["metadata"]["resourceVersion"] == before
    assert policy.cron_job()["metadata"]["resourceVersion"] == labelled


def test_r1_1_a_deleted_cron_job_is_made_anew(policies: Policies) -> None:
    policy = policies.ready()
    uid = policy.cron_job()["metadata"]["uid"]
    policies.kubectl.run("delete", "cronjob", policy.cron_job_name, "-n", policy.namespace)

    def anew() -> bool:
        there = policy.has_cron_job()
        return there and policy.cron_job()["metadata"]["uid"] != uid

    eventually(anew, what="a new CronJob")


def test_r1_1_a_foreign_cron_job_is_never_adopted(policies: Policies) -> None:
    policy = policies.named()
    foreign = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": policy.cron_job_name, "labels": {POLICY_LABEL: policy.name}},
        "spec": {
            "schedule": "0 0 1 1 *",
            "jobTemplate": {
                "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}}}
            },
        },
    }
    policies.kubectl.apply(foreign, policies.namespace)
    before = policy.cron_job()
    policy.apply()
    assert policy.cron_job_name in policy.await_condition("Ready", "False", "NotOwned")["message"]
    policy.await_condition("Stalled", "True", "NotOwned")
    assert policy.cron_job() == before
    policies.kubectl.run("delete", "cronjob", policy.cron_job_name, "-n", policies.namespace)
    policy.await_ready()
    assert policy.condition("Stalled") == {}


def test_suspended_is_ready_and_has_no_next_run(policies: Policies) -> None:
    policy = policies.ready(suspend=True)
    assert policy.condition("Ready")["reason"] == "Suspended"
    assert "nextScheduleTime" not in policy.status()
    policy.apply(suspend=False)
    policy.await_condition("Ready", "True", "CronJobApplied")
    assert policy.cron_job()["spec"]["suspend"] is False
    assert "nextScheduleTime" in policy.status()


@pytest.mark.representative(2)
@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"schedule": "every hour"}, "InvalidSchedule", "expected exactly 5 fields"),
        ({"schedule": "99 * * * *"}, "InvalidSchedule", "end of range (99) above maximum (59)"),
        ({"timeZone": "Europe/Atlantis"}, "InvalidSchedule", "unknown time zone Europe/Atlantis"),
        (
            {"job": {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}},
            "InvalidSpec",
            "must be less than or equal to cpu limit",
        ),
        ({"job": {"nodeSelector": {"not a label!": "x"}}}, "InvalidSpec", "nodeSelector"),
        ({"job": {"resources": {"limits": {"cpu": "1e1.5"}}}}, "InvalidSpec", "not a quantity"),
    ],
    ids=["words", "range", "zone", "resources", "label", "quantity"],
)
def test_what_the_server_refuses_is_told_in_its_own_words_and_can_be_corrected(
    policies: Policies, spec: dict[str, Any], reason: str, words: str
) -> None:
    policy = policies.named()
    policy.apply(**spec)
    ready = policy.await_condition("Ready", "False", reason)
    assert words in ready["message"]
    policy.await_condition("Stalled", "True", reason)
    assert words in policy.await_event(reason)
    assert "nextScheduleTime" not in policy.status()
    policy.apply()
    policy.await_ready()


def test_a_refused_edit_leaves_the_cron_job_that_works(policies: Policies) -> None:
    policy = policies.ready()
    before = policy.cron_job()["spec"]
    policy.apply(schedule="nonsense")
    policy.await_condition("Ready", "False", "InvalidSchedule")
    assert policy.cron_job()["spec"] == before
    assert policy.status()["cronJobName"] == policy.cron_job_name


@pytest.mark.representative(2)
@pytest.mark.parametrize("length", [52, 53, 100, 253])
def test_a_name_of_any_length_works(policies: Policies, length: int) -> None:
    policy = policies.ready(f"{length}-" + "n" * (length - len(f"{length}-")))
    assert len(policy.cron_job_name) <= 52
    job = policy.request_run()
    assert len(job) <= 63


def test_r1_1_a_deleted_policy_takes_its_cron_job_and_jobs_with_it(policies: Policies) -> None:
    policy = policies.ready()
    job = policy.request_run()
    assert not policy.get()["metadata"].get("finalizers")
    policies.kubectl.run("delete", "spol", policy.name, "-n", policy.namespace, "--timeout=240s")

    def gone() -> bool:
        return not policy.has_cron_job() and not policies.kubectl.exists("job", job, policy.namespace)

    eventually(gone, what="CronJob and Job are collected")


def test_a_policy_deleted_in_the_foreground_is_not_given_a_new_cron_job(policies: Policies) -> None:
    policy = policies.ready()
    policies.kubectl.run(
        *("delete", "spol", policy.name, "-n", policy.namespace, "--cascade=foreground", "--timeout=240s")
    )
    eventually(lambda: not policy.has_cron_job(), what="no CronJob")


def test_a_policy_made_again_under_the_same_name_gets_its_own_cron_job(policies: Policies) -> None:
    policy = policies.ready()
    policies.kubectl.run("delete", "spol", policy.name, "-n", policy.namespace)
    policy.apply()
    policy.await_ready()
    (owner,) = policy.cron_job()["metadata"]["ownerReferences"]
    assert owner["uid"] == policy.get()["metadata"]["uid"]


def test_the_controller_writes_neither_annotations_nor_finalizers(policies: Policies) -> None:
    policy = policies.ready()
    metadata = policy.get()["metadata"]
    assert set(metadata.get("annotations", {})) == {"kubectl.kubernetes.io/last-applied-configuration"}
    assert "finalizers" not in metadata
    assert "annotations" not in policy.cron_job()["metadata"]


def test_a_status_edited_by_hand_does_not_stop_the_controller(policies: Policies) -> None:
    policy = policies.ready()
    broken = {"status": {"conditions": [], "history": [], "consecutiveFailures": 7, "cronJobName": "x"}}
    where = ("spol", policy.name, "-n", policy.namespace, "--subresource=status", "--type=merge")
    policies.kubectl.run("patch", *where, "-p", json.dumps(broken))
    policy.apply(dryRun=True)
    policy.await_condition("Ready", "True")
    assert policy.status()["cronJobName"] == policy.cron_job_name


def test_unknown_fields_are_refused_by_kubectl(policies: Policies) -> None:
    wrong = manifest("wrong", image="evil")
    with pytest.raises(subprocess.CalledProcessError) as raised:
        policies.kubectl.apply(wrong, policies.namespace)
    assert 'unknown field "spec.image"' in raised.value.stderr


def _apart_from_generation(spec: dict[str, Any]) -> dict[str, Any]:
    """The CronJob's spec; the manifest in it counts the policy's generations."""
    text = json.dumps(spec)
    env = pod_spec({"spec": spec})["containers"][0]["env"][0]["value"]
    policy = json.loads(env)
    del policy["metadata"]["generation"]
    found: dict[str, Any] = json.loads(text)
    pod_spec({"spec": found})["containers"][0]["env"][0]["value"] = json.dumps(policy)
    return found


@pytest.fixture
def ending_namespace(cluster: Kubectl) -> Iterator[str]:
    """A namespace that is being deleted, for as long as a finalizer holds an object in it."""
    held = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    with cluster.temporary_namespace("ending") as name:
        cluster.apply(held, name)
        cluster.run("delete", "namespace", name, "--wait=false")
        yield name
        cluster.run("patch", "configmap", "held", "-n", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


def test_that_a_namespace_is_being_deleted_is_not_taken_for_missing_rights(
    operator_kubeconfig: Path, ending_namespace: str
) -> None:
    async def create_all() -> None:
        configuration = client.Configuration()
        configuration.disable_strict_ssl_verification = True
        await config.load_kube_config(str(operator_kubeconfig), client_configuration=configuration)
        kube = Kube(client.ApiClient(configuration))
        metadata = {"name": "late", "namespace": ending_namespace}
        template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "run", "image": JOB_IMAGE}]}}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}}
        spec = {"schedule": "0 0 29 2 *", "jobTemplate": {"spec": {"template": template}}}
        cron_job = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": spec}
        event = {"apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": metadata}
        try:
            for create, manifest in (
                (kube.create_cron_job, cron_job),
                (kube.create_job, job),
                (kube.create_event, event),
            ):
                with pytest.raises(NotFoundError, match="being terminated"):
                    await create(manifest)
        finally:
            await kube.close()

    asyncio.run(create_all())
