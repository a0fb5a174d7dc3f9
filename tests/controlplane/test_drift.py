"""Drift on every field of the CronJob: whatever somebody changes, removes or adds is put back.

The fields are taken from the CronJob itself, so that a field which the controller sets from tomorrow on is covered.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from controller.manifests.trace_link import link
from tests.controlplane.conftest import StartController
from tests.controlplane.policies import Policies, Policy
from tests.controlplane.somebody import RefusedError, Somebody
from tests.support.kube import Kubectl, eventually
from tests.support.patience import PATIENCE_SECONDS

Path = tuple[str | int, ...]

# As many policies are changed at the same time, each in one way.
_AT_ONCE = 12

_SECRET = {"secretKeyRef": {"name": "stores", "key": "some-key"}}
# Everything a policy can say that reaches the CronJob, so that there is something to drift.
_SPEC: dict[str, Any] = {
    "timeZone": "Europe/Berlin",
    "stores": {"database": {"urlFrom": _SECRET}, "redis": {"urlFrom": _SECRET}},
    "alerts": {"operations": {"urlsFrom": _SECRET}, "security": {"urlsFrom": _SECRET}},
    "logs": {"hashKeyFrom": _SECRET, "volumeClaim": "session-logs"},
    "job": {
        "retries": 3,
        "nodeSelector": {"disk": "ssd", "example.com/pool": "batch"},
        "tolerations": [
            {"key": "batch", "operator": "Equal", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 60},
            {"key": "spot", "operator": "Exists"},
        ],
        "resources": {"requests": {"ephemeral-storage": "1Mi"}, "limits": {"ephemeral-storage": "2Mi"}},
    },
}
_OPERATOR = {
    "SESSION_POLICY_JOB_PRIORITY_CLASS": "batch-low",
    "SESSION_POLICY_JOB_IMAGE_PULL_SECRETS": "registry-one,registry-two",
    "SESSION_POLICY_JOB_TELEMETRY_ENDPOINT": "http://collector.example:4318",
    "SESSION_POLICY_JOB_TELEMETRY_HEADERS_SECRET": "otlp",
    "SESSION_POLICY_JOB_TELEMETRY_SAMPLING_PERCENT": "50",
    "SESSION_POLICY_JOB_TELEMETRY_RESOURCE_ATTRIBUTES": "k8s.cluster.name=north",
    "SESSION_POLICY_JOB_TELEMETRY_METRICS": "false",
    # Nobody is there: the link of each run to its reconciliation is in the CronJob nevertheless.
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
}

# Where only some values are valid: another valid one. Else a value is changed by its type.
_OTHER: dict[str, Any] = {
    "Forbid": "Allow",
    "IfNotPresent": "Always",
    "Never": "OnFailure",
    "File": "FallbackToLogsOnError",
    "RuntimeDefault": "Unconfined",
    "ClusterFirst": "Default",
    "FailJob": "Count",
    "Ignore": "Count",
    "In": "NotIn",
    "Equal": "Exists",
    "Exists": "Equal",
    "NoExecute": "NoSchedule",
    "True": "False",
    "TerminatingOrFailed": "Failed",
    "NonIndexed": "Indexed",
    "Europe/Berlin": "Asia/Seoul",
    "0 0 29 2 *": "1 1 1 1 1",
    "v1": "v2",
    "batch-low": "system-node-critical",
    "ALL": "NET_RAW",
    "metadata.labels['batch.kubernetes.io/controller-uid']": "metadata.name",
    "metadata.labels['batch.kubernetes.io/job-name']": "metadata.name",
    "metadata.name": "metadata.uid",
    "metadata.uid": "metadata.name",
    "metadata.namespace": "metadata.name",
    "spec.nodeName": "spec.serviceAccountName",
}


@dataclass(frozen=True)
class Change:
    """One thing that somebody does to a CronJob."""

    what: str
    operations: tuple[dict[str, Any], ...]


def pointer(path: Path) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def add(path: Path, value: Any) -> dict[str, Any]:
    """Sets a member, or puts an item into a list."""
    return {"op": "add", "path": pointer(path), "value": value}


def remove(path: Path) -> dict[str, Any]:
    return {"op": "remove", "path": pointer(path)}


_JOB: Path = ("spec", "jobTemplate", "spec")
_POD: Path = ("spec", "jobTemplate", "spec", "template", "spec")
_CONTAINER: Path = (*_POD, "containers", 0)

# Fields that the controller does not set, and what somebody may want with them.
_ADDED: dict[Path, Any] = {
    ("spec", "jobTemplate", "metadata", "annotations"): {"added": "x"},
    ("spec", "jobTemplate", "metadata", "labels", "added"): "x",
    ("spec", "jobTemplate", "spec", "ttlSecondsAfterFinished"): 0,
    ("spec", "jobTemplate", "spec", "parallelism"): 5,
    ("spec", "jobTemplate", "spec", "completions"): 5,
    ("spec", "jobTemplate", "spec", "suspend"): True,
    ("spec", "jobTemplate", "spec", "managedBy"): "example.com/other",
    ("spec", "jobTemplate", "spec", "podFailurePolicy", "rules", "-"): {
        "action": "Ignore",
        "onExitCodes": {"operator": "In", "values": [1]},
    },
    ("spec", "jobTemplate", "spec", "template", "metadata", "annotations"): {"added": "x"},
    ("spec", "jobTemplate", "spec", "template", "metadata", "labels", "added"): "x",
    ("spec", "jobTemplate", "spec", "template", "metadata", "finalizers"): ["example.com/added"],
    (*_POD, "hostNetwork"): True,
    (*_POD, "hostPID"): True,
    (*_POD, "hostIPC"): True,
    (*_POD, "shareProcessNamespace"): True,
    (*_POD, "serviceAccountName"): "admin",
    (*_POD, "nodeName"): "node-1",
    (*_POD, "hostname"): "added",
    (*_POD, "subdomain"): "added",
    (*_POD, "runtimeClassName"): "added",
    (*_POD, "preemptionPolicy"): "Never",
    (*_POD, "affinity"): {"nodeAffinity": {}},
    (*_POD, "hostAliases"): [{"ip": "192.0.2.1", "hostnames": ["db"]}],
    (*_POD, "dnsConfig"): {"nameservers": ["192.0.2.1"]},
    (*_POD, "readinessGates"): [{"conditionType": "example.com/added"}],
    (*_POD, "schedulingGates"): [{"name": "example.com/added"}],
    (*_POD, "topologySpreadConstraints"): [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
    ],
    (*_POD, "initContainers"): [{"name": "added", "image": "added"}],
    (*_POD, "containers", "-"): {"name": "added", "image": "added"},
    (*_POD, "volumes", "-"): {"name": "added", "hostPath": {"path": "/"}},
    (*_POD, "imagePullSecrets", "-"): {"name": "added"},
    (*_POD, "tolerations", "-"): {"operator": "Exists"},
    (*_POD, "nodeSelector", "added"): "x",
    (*_POD, "securityContext", "fsGroup"): 0,
    (*_POD, "securityContext", "supplementalGroups"): [0],
    (*_POD, "securityContext", "sysctls"): [{"name": "kernel.shm_rmid_forced", "value": "0"}],
    (*_CONTAINER, "command"): ["sh"],
    (*_CONTAINER, "args", "-"): "--added",
    (*_CONTAINER, "workingDir"): "/added",
    (*_CONTAINER, "stdin"): True,
    (*_CONTAINER, "env", "-"): {"name": "ADDED", "value": "x"},
    (*_CONTAINER, "env", 0): {"name": "ADDED_FIRST", "value": "x"},
    (*_CONTAINER, "envFrom"): [{"secretRef": {"name": "added"}}],
    (*_CONTAINER, "ports"): [{"containerPort": 80}],
    (*_CONTAINER, "volumeMounts", 0, "subPath"): "added",
    (*_CONTAINER, "lifecycle"): {"preStop": {"exec": {"command": ["added"]}}},
    (*_CONTAINER, "livenessProbe"): {"exec": {"command": ["added"]}},
    (*_CONTAINER, "resources", "limits", "hugepages-2Mi"): "2Mi",
    (*_CONTAINER, "securityContext", "capabilities", "add"): ["NET_RAW"],
    (*_CONTAINER, "securityContext", "runAsUser"): 0,
    (*_CONTAINER, "securityContext", "runAsNonRoot"): False,
    (*_CONTAINER, "securityContext", "procMount"): "Default",
    (*_CONTAINER, "securityContext", "seccompProfile"): {"type": "Unconfined"},
}


def nodes(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Everything below a value, the value itself included."""
    yield path, value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from nodes(part, (*path, key))


def other(path: Path, value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if value in _OTHER:
        return _OTHER[value]
    if "requests" in path:
        return "1m" if path[-1] == "cpu" else "1Ki"  # requests must not be above limits
    if "limits" in path:
        return f"1{value}"
    return f"{value}x"


def changes(cron_job: dict[str, Any]) -> list[Change]:
    """Every value changed, every node removed, every list turned round, and what `_ADDED` says."""
    labels: Path = ("metadata", "labels")
    found = [Change(what, operations) for what, operations in _TOGETHER.items()]
    managed = [*nodes(cron_job["metadata"]["labels"], labels), *nodes(cron_job["spec"], ("spec",))]
    for path, value in managed:
        where = pointer(path)
        if not isinstance(value, dict | list):
            found.append(Change(f"change {where}", ({"op": "replace", "path": where, "value": other(path, value)},)))
        if path != ("spec",):
            found.append(Change(f"remove {where}", ({"op": "remove", "path": where},)))
        if isinstance(value, list) and len(value) > 1:
            found.append(Change(f"turn round {where}", ({"op": "replace", "path": where, "value": value[::-1]},)))
    for path, value in _ADDED.items():
        found.append(Change(f"add {pointer(path)}", (add(path, value),)))
    return found


def managed(cron_job: dict[str, Any]) -> dict[str, Any]:
    """What must be as it was."""
    metadata = cron_job["metadata"]
    return {"labels": metadata.get("labels"), "owners": metadata.get("ownerReferences"), "spec": cron_job["spec"]}


# What the API server takes only together.
_TOGETHER: dict[str, tuple[dict[str, Any], ...]] = {
    "another restart policy": (remove((*_JOB, "podFailurePolicy")), add((*_POD, "restartPolicy"), "OnFailure")),
    "another container": (
        remove((*_JOB, "podFailurePolicy")),
        add((*_POD, "containers"), [{"name": "other", "image": "other"}]),
    ),
    "the container renamed": (
        add((*_JOB, "podFailurePolicy", "rules", 0, "onExitCodes", "containerName"), "other"),
        add((*_CONTAINER, "name"), "other"),
    ),
    "the volume renamed": (
        add((*_POD, "volumes", 0, "name"), "other"),
        add((*_CONTAINER, "volumeMounts", 0, "name"), "other"),
    ),
    "no volumes": (remove((*_POD, "volumes")), remove((*_CONTAINER, "volumeMounts"))),
    "another effect": (
        remove((*_POD, "tolerations", 0, "tolerationSeconds")),
        add((*_POD, "tolerations", 0, "effect"), "NoSchedule"),
    ),
    "everything tolerated": (
        remove((*_POD, "tolerations", 0, "value")),
        remove((*_POD, "tolerations", 0, "key")),
        add((*_POD, "tolerations", 0, "operator"), "Exists"),
    ),
    "a container of root": (
        add((*_CONTAINER, "securityContext"), {"allowPrivilegeEscalation": True, "runAsUser": 0}),
        add((*_POD, "securityContext"), {"runAsUser": 0}),
    ),
    "another pod": (
        remove((*_JOB, "podFailurePolicy")),
        add(_POD, {"restartPolicy": "Never", "containers": [{"name": "other", "image": "other"}]}),
    ),
}

# What the API server lets nobody do to the CronJob, so that there is nothing to put back: required fields are removed,
# or fields that others refer to are changed. The latter are changed in `_TOGETHER`.
_REFUSED = (
    r"remove /spec/schedule",
    r"remove /spec/jobTemplate(/spec(/template(/spec)?)?)?",
    r"remove .*/rules/\d/(action|onExitCodes|onPodConditions)",
    r"remove .*/onExitCodes/(operator|values(/0)?)",
    r"change .*/onExitCodes/containerName",
    r"remove .*/onPodConditions/0(/type)?",
    r"remove .*/spec/volumes(/0(/name|/persistentVolumeClaim/claimName)?)?",
    r"change .*/volumes/0/name",
    r"remove .*/containers(/0)?(/name|/image)?",
    r"change .*/containers/0/name",
    r"remove .*/env/\d+/name",
    r"remove .*/valueFrom/fieldRef(/fieldPath)?",
    r"change .*/valueFrom/fieldRef/apiVersion",
    r"remove .*/valueFrom/secretKeyRef(/name|/key)?",
    r"(remove|change) .*/volumeMounts/0/name",
    r"remove .*/volumeMounts/0/mountPath",
    r"(remove|change) .*/spec/restartPolicy",
    r"remove .*/seccompProfile/type",
    r"remove .*/tolerations/0/(key|effect)",
    r"change .*/tolerations/0/(operator|effect)",
)


@pytest.fixture
def own(cluster: Kubectl, namespace: str, start_controller: StartController) -> Policies:
    """Policies of a controller whose administrator has set everything that can be set."""
    start_controller(namespace, **_OPERATOR)
    return Policies(cluster, namespace)


@pytest.fixture
def somebody(cluster: Kubectl) -> Somebody:
    return Somebody(cluster.kubeconfig)


def is_put_back(policy: Policy, before: dict[str, Any]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while managed(policy.cron_job()) != before:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.exhaustive
def test_r1_1_drift_of_every_field_is_put_back(own: Policies, somebody: Somebody) -> None:
    policies = [own.ready(f"drift-{number}", **_SPEC) for number in range(_AT_ONCE)]
    before = [managed(policy.cron_job()) for policy in policies]
    # But for the names and the links to their reconciliations, the CronJobs are the same.
    assert all(link(policy.cron_job()) for policy in policies)
    planned = [changes(policy.cron_job()) for policy in policies]
    put_back: list[str] = []
    left: list[str] = []
    without_effect: list[str] = []
    refused: dict[str, str] = {}
    for first in range(0, len(planned[0]), _AT_ONCE):
        changed = []
        for number, policy in enumerate(policies[: len(planned[0]) - first]):
            change = planned[number][first + number]
            try:
                after = somebody.change("cronjobs", policy.namespace, policy.cron_job_name, change.operations)
            except RefusedError as error:
                refused[change.what] = str(error)
                continue
            if managed(after) == before[number]:
                without_effect.append(change.what)
            else:
                changed.append((number, change.what))
        for number, what in changed:
            (put_back if is_put_back(policies[number], before[number]) else left).append(what)
    assert left == []
    assert len(put_back) > 200
    # A server's default that is what the controller wants comes back by itself.
    assert all(what.startswith("remove") for what in without_effect), without_effect
    assert len(without_effect) < 20
    unexpected = {what: why for what, why in refused.items() if not any(re.fullmatch(r, what) for r in _REFUSED)}
    assert unexpected == {}, "change these in a way that the API server takes"
    unused = [pattern for pattern in _REFUSED if not any(re.fullmatch(pattern, what) for what in refused)]
    assert unused == [], "these are not refused any more"
    assert somebody.manager in policies[0].await_event("DriftCorrected")


def test_r1_1_a_cron_job_written_whole_as_by_an_editor_is_put_back(own: Policies, somebody: Somebody) -> None:
    policy = own.ready(**_SPEC)
    cron_job = policy.cron_job()
    before = managed(cron_job)
    edited = policy.cron_job()
    pod = edited["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    pod["hostNetwork"] = True
    pod["containers"][0]["image"] = "other"
    pod["containers"].append({"name": "added", "image": "added"})
    del pod["nodeSelector"]
    somebody.replace("cronjobs", policy.namespace, policy.cron_job_name, edited)
    assert is_put_back(policy, before)
    assert policy.cron_job()["metadata"]["uid"] == cron_job["metadata"]["uid"]


OWNER: Path = ("metadata", "ownerReferences", 0)


@pytest.mark.parametrize(
    "operation",
    [
        add((*OWNER, "blockOwnerDeletion"), True),
        pytest.param(remove((*OWNER, "blockOwnerDeletion")), marks=pytest.mark.exhaustive),
        pytest.param(add((*OWNER, "apiVersion"), "example.com/v1"), marks=pytest.mark.exhaustive),
        pytest.param(add((*OWNER, "kind"), "Other"), marks=pytest.mark.exhaustive),
    ],
    ids=lambda operation: f"{operation['op']} {operation['path']}",
)
def test_r1_1_a_changed_owner_reference_is_put_back(
    own: Policies, somebody: Somebody, operation: dict[str, Any]
) -> None:
    policy = own.ready()
    before = managed(policy.cron_job())
    somebody.change("cronjobs", policy.namespace, policy.cron_job_name, [operation])
    assert is_put_back(policy, before)


@pytest.mark.representative(1)
@pytest.mark.parametrize(
    "operation",
    [remove(("metadata", "ownerReferences")), add((*OWNER, "controller"), False)],
    ids=["no owner", "an owner that does not control it"],
)
def test_r1_1_a_cron_job_taken_from_its_policy_is_not_taken_back(
    own: Policies, somebody: Somebody, operation: dict[str, Any]
) -> None:
    policy = own.ready()
    taken = somebody.change("cronjobs", policy.namespace, policy.cron_job_name, [operation])
    policy.await_condition("Ready", "False", "NotOwned")
    policy.await_condition("Stalled", "True", "NotOwned")
    assert policy.cron_job() == taken
    # As the message says: delete it, and there is a new one.
    somebody.delete("cronjobs", policy.namespace, policy.cron_job_name)
    policy.await_condition("Ready", "True")
    assert policy.cron_job()["metadata"]["ownerReferences"][0]["controller"] is True


def test_what_others_add_to_the_cron_job_s_metadata_is_left(own: Policies, somebody: Somebody) -> None:
    policy = own.ready()
    keeper = own.ready("keeper").get()
    owner = {name: keeper[name] for name in ("apiVersion", "kind")} | {
        name: keeper["metadata"][name] for name in ("name", "uid")
    }
    added = [
        add(("metadata", "labels", "team"), "shop"),
        add(("metadata", "annotations"), {"example.com/note": "x"}),
        add(("metadata", "ownerReferences", "-"), owner),
    ]
    somebody.change("cronjobs", policy.namespace, policy.cron_job_name, added)
    # Something to put back makes the controller write the object.
    somebody.change("cronjobs", policy.namespace, policy.cron_job_name, [add(("spec", "suspend"), True)])
    eventually(lambda: policy.cron_job()["spec"]["suspend"] is False, what="the drift is put back")
    metadata = policy.cron_job()["metadata"]
    assert metadata["labels"]["team"] == "shop"
    assert metadata["annotations"] == {"example.com/note": "x"}
    assert [reference["name"] for reference in metadata["ownerReferences"]] == [policy.name, "keeper"]


def test_r1_1_nothing_is_written_once_all_is_put_back(own: Policies, somebody: Somebody) -> None:
    policy = own.ready(**_SPEC)
    somebody.change("cronjobs", policy.namespace, policy.cron_job_name, [add((*_POD, "hostNetwork"), True)])
    policy.await_event("DriftCorrected")
    version = policy.cron_job()["metadata"]["resourceVersion"]
    # Another policy's readiness shows that the controller has had the time to write again.
    own.ready()
    assert policy.cron_job()["metadata"]["resourceVersion"] == version
