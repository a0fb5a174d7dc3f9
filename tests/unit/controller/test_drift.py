"""What counts as drift. How it is put back is tested on a real API server."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from controller.manifests.cronjob import build_cron_job
from controller.manifests.drift import foreign_managers, is_owned_by, matches, take_over
from policy.names import FIELD_MANAGER
from tests.unit.controller.builders import POLICY_UID, SETTINGS, typed_policy

Change = Callable[[dict[str, Any]], object]


def desired() -> dict[str, Any]:
    policy = typed_policy(job={"resources": {"limits": {"cpu": "0.25"}}, "nodeSelector": {"disk": "ssd"}})
    return build_cron_job(policy, POLICY_UID, SETTINGS)


def stored() -> dict[str, Any]:
    """As the server shows it: quantities rewritten, empty fields left out, defaults filled in."""
    manifest = copy.deepcopy(desired())
    manifest["metadata"] |= {"uid": "uid", "resourceVersion": "5"}
    spec = pod_spec(manifest)
    for empty in ("tolerations", "imagePullSecrets", "priorityClassName"):
        del spec[empty]
    spec |= {"dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler"}
    container(manifest)["resources"]["limits"]["cpu"] = "250m"
    return manifest


def pod_spec(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod_spec(manifest)["containers"][0]
    return found


def test_what_the_server_makes_of_the_manifest_is_no_drift() -> None:
    assert matches(desired(), stored())


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["spec"].update(schedule="0 0 * * *"),
        lambda m: m["spec"].update(suspend=True),
        lambda m: m["spec"]["jobTemplate"]["spec"].pop("podFailurePolicy"),
        lambda m: pod_spec(m).pop("nodeSelector"),
        lambda m: pod_spec(m)["nodeSelector"].update(zone="a"),
        lambda m: pod_spec(m).update(tolerations=[{"operator": "Exists"}]),
        lambda m: pod_spec(m)["containers"].append({"name": "other", "image": "x"}),
        lambda m: pod_spec(m)["securityContext"].update(runAsNonRoot=False),
        lambda m: container(m)["env"].append({"name": "OTHER", "value": "x"}),
        lambda m: container(m)["env"].pop(),
        lambda m: container(m)["resources"]["limits"].update(cpu="300m"),
        lambda m: container(m)["resources"]["limits"].update({"ephemeral-storage": "1Gi"}),
        lambda m: container(m).update(image="other"),
        lambda m: m["metadata"]["labels"].pop("sessionpolicy.dev/policy"),
        lambda m: m["metadata"]["ownerReferences"][0].update(controller=False),
        lambda m: m["metadata"].pop("ownerReferences"),
    ],
)
def test_r1_1_any_change_of_what_is_wanted_is_drift(change: Change) -> None:
    changed = stored()
    change(changed)
    assert not matches(desired(), changed)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["metadata"]["labels"].update({"argocd.argoproj.io/instance": "shop"}),
        lambda m: m["metadata"].update(annotations={"note": "x"}),
        lambda m: m["metadata"]["ownerReferences"].append({"uid": "other", "kind": "ConfigMap"}),
        lambda m: m.update(status={"lastScheduleTime": "2026-03-01T10:50:00Z"}),
    ],
)
def test_what_others_note_on_the_cron_job_s_metadata_is_theirs(change: Change) -> None:
    changed = stored()
    change(changed)
    assert matches(desired(), changed)


def entry(manager: str, operation: str = "Update", fields: dict[str, Any] | None = None, **more: str) -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "fieldsV1": fields or {"f:spec": {"f:suspend": {}}}} | more


def test_whoever_owns_a_field_of_the_spec_is_foreign_but_the_controller_and_the_status_writer() -> None:
    observed = stored()
    observed["metadata"]["managedFields"] = [
        entry(FIELD_MANAGER, "Apply"),
        entry(FIELD_MANAGER),
        entry("kube-controller-manager", fields={"f:status": {}}, subresource="status"),
        entry("labeller", fields={"f:metadata": {"f:labels": {"f:x": {}}}}),
        entry("kubectl-edit"),
    ]
    assert foreign_managers(observed) == ["kubectl-edit"]


def test_taking_over_leaves_others_what_they_own_outside_the_spec() -> None:
    observed = stored()
    metadata: dict[str, Any] = {"f:metadata": {"f:annotations": {"f:x": {}}}}
    status = entry("kube-controller-manager", fields={"f:status": {}}, subresource="status")
    observed["metadata"]["managedFields"] = [
        entry(FIELD_MANAGER, "Apply", {"f:spec": {"f:schedule": {}}}),
        entry("kubectl-edit", fields=metadata | {"f:spec": {"f:suspend": {}}}),
        status,
    ]
    patch = take_over(observed)
    assert patch is not None
    version, fields = patch
    assert version["value"] == "5"
    ours, theirs, untouched = fields["value"]
    assert (ours["manager"], ours["operation"]) == (FIELD_MANAGER, "Apply")
    assert ours["fieldsV1"] == {"f:spec": {"f:schedule": {}, "f:suspend": {}}}
    assert theirs["fieldsV1"] == metadata
    assert untouched == status


def test_there_is_nothing_to_take_over_from_nobody() -> None:
    observed = stored()
    observed["metadata"]["managedFields"] = [entry(FIELD_MANAGER, "Apply")]
    assert take_over(observed) is None


@pytest.mark.parametrize(
    ("fields", "stated"),
    [
        ({"f:schedule": {}}, True),
        ({"f:jobTemplate": {"f:spec": {"f:podFailurePolicy": {"f:rules": {}}}}}, True),
        ({"f:jobTemplate": {"f:spec": {"f:template": {"f:spec": {"f:hostNetwork": {}}}}}}, False),
        ({"f:jobTemplate": {"f:spec": {"f:template": {"f:spec": {"f:nodeSelector": {"f:disk": {}}}}}}}, True),
        ({"f:jobTemplate": {"f:spec": {"f:template": {"f:spec": {"f:nodeSelector": {"f:zone": {}}}}}}}, False),
        (
            {"f:jobTemplate": {"f:spec": {"f:template": {"f:spec": {"f:volumes": {'k:{"name":"v"}': {".": {}}}}}}}},
            False,
        ),
        (
            {
                "f:jobTemplate": {
                    "f:spec": {
                        "f:template": {
                            "f:spec": {
                                "f:containers": {
                                    'k:{"name":"session-policy"}': {
                                        ".": {},
                                        "f:env": {'k:{"name":"DATABASE_URL"}': {".": {}, "f:valueFrom": {}}},
                                    }
                                }
                            }
                        }
                    }
                }
            },
            True,
        ),
    ],
)
def test_the_controller_may_own_no_more_than_it_states(fields: dict[str, Any], stated: bool) -> None:
    observed = stored()
    observed["metadata"]["managedFields"] = [entry(FIELD_MANAGER, "Apply", {"f:spec": fields})]
    assert matches(desired(), observed) is stated


def test_only_the_controlling_owner_s_uid_counts() -> None:
    assert is_owned_by(stored(), POLICY_UID)
    assert not is_owned_by(stored(), "another-uid")
    listed = stored()
    listed["metadata"]["ownerReferences"][0]["controller"] = False
    assert not is_owned_by(listed, POLICY_UID)
    assert not is_owned_by({"metadata": {}}, POLICY_UID)


@pytest.mark.parametrize("name", ["labels", "annotations"])
def test_what_the_operator_s_configuration_no_longer_adds_to_the_pod_is_drift(name: str) -> None:
    changed = stored()
    changed["spec"]["jobTemplate"]["spec"]["template"]["metadata"].setdefault(name, {})["team"] = "identity"
    assert not matches(desired(), changed)
