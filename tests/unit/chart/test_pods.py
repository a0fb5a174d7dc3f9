"""The pods of the chart, and what the controller is told."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
import yaml

from controller import selftest
from tests.support.chart import (
    CHART,
    NAME,
    NAMESPACE,
    ROOT,
    container,
    deployment,
    environment,
    is_hook,
    of_kind,
    pod_spec,
    render,
)
from tools.chart_lint import EVERYTHING, VALUE_SETS


def pod_templates(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Every pod of the chart, as metadata and spec, that of `helm test` included."""
    objects = render(values)
    pods = [manifest["spec"]["template"] for manifest in of_kind(objects, "Deployment")]
    return pods + of_kind(objects, "Pod", tests=True)


def test_k8_9_global_registry_and_pull_secrets_apply_to_every_pod_and_other_globals_are_let_pass() -> None:
    shared = {"imageRegistry": "mirror.example.com/", "imagePullSecrets": ["mirror", {"name": "other"}], "storage": "x"}
    values = {
        "global": shared,
        "controller": {"image": {"registry": "own.example.com"}, "imagePullSecrets": ["own", "mirror"]},
        "job": {"image": {"registry": "own.example.com"}},
    }
    for pod in pod_templates(values):
        assert pod["spec"]["containers"][0]["image"].startswith("mirror.example.com/session-policy-controller:")
        assert pod["spec"]["imagePullSecrets"] == [{"name": "own"}, {"name": "mirror"}, {"name": "other"}]
    told = environment(values)
    assert told["SESSION_POLICY_JOB_IMAGE"].startswith("mirror.example.com/session-policy-job:")
    assert told["SESSION_POLICY_JOB_IMAGE_PULL_SECRETS"] == "mirror,other"


def test_distribution_and_application_have_the_same_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == version
    assert container()["image"] == f"session-policy-controller:{version}"
    assert environment()["SESSION_POLICY_JOB_IMAGE"] == f"session-policy-job:{version}"


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS.keys())
def test_every_pod_meets_pod_security_restricted(values: dict[str, Any]) -> None:
    for pod in pod_templates(values):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)
        for each in spec["containers"]:
            security = each["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert each["resources"]["limits"]["memory"]
            assert each["resources"]["requests"]["cpu"]


def test_tokens_are_mounted_by_pods_not_by_accounts() -> None:
    objects = render()
    accounts = of_kind(objects, "ServiceAccount") + of_kind(objects, "ServiceAccount", tests=True)
    assert len(accounts) == 2
    assert all(account["automountServiceAccountToken"] is False for account in accounts)
    assert all(pod["spec"]["automountServiceAccountToken"] is True for pod in pod_templates({}))


def test_controllers_are_replaced_one_by_one_and_elect_a_leader() -> None:
    spec = deployment()["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    told = environment()
    assert told["SESSION_POLICY_LEADER_ELECTION"] == "true"
    assert told["SESSION_POLICY_LEASE_NAME"] == NAME
    fields = {e["name"]: e["valueFrom"]["fieldRef"]["fieldPath"] for e in container()["env"] if "valueFrom" in e}
    assert fields == {
        "SESSION_POLICY_LEASE_NAMESPACE": "metadata.namespace",
        "SESSION_POLICY_POD_NAME": "metadata.name",
    }


def test_the_selector_never_changes_so_that_every_upgrade_is_possible() -> None:
    # What the first release of the chart selected by. A Deployment's selector is immutable.
    first = {
        "app.kubernetes.io/name": "session-policy-operator",
        "app.kubernetes.io/instance": "release",
        "app.kubernetes.io/component": "controller",
    }
    values = {"commonLabels": dict.fromkeys(first, "x"), "controller": {"podLabels": dict.fromkeys(first, "y")}}
    for found in (deployment(), deployment(values)):
        assert found["spec"]["selector"]["matchLabels"] == first
        assert first.items() <= found["spec"]["template"]["metadata"]["labels"].items()


def test_the_pod_of_helm_test_is_not_taken_for_a_controller() -> None:
    (pod,) = of_kind(render(), "Pod", tests=True)
    selector = deployment()["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= pod["metadata"]["labels"].items()


def test_probes_ask_the_port_the_controller_is_told() -> None:
    (port,) = container()["ports"]
    assert port["name"] == "http"
    assert environment()["SESSION_POLICY_HTTP_PORT"] == str(port["containerPort"])
    paths = {"startupProbe": "/healthz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    for probe, path in paths.items():
        assert container()[probe]["httpGet"] == {"path": path, "port": "http"}


def test_a_drain_takes_one_controller_at_a_time() -> None:
    (budget,) = of_kind(render(), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"] == deployment()["spec"]["selector"]
    assert not of_kind(render({"controller": {"replicas": 1}}), "PodDisruptionBudget")
    off = {"controller": {"podDisruptionBudget": {"enabled": False}}}
    assert not of_kind(render(off), "PodDisruptionBudget")


def test_controllers_prefer_different_nodes() -> None:
    (spread,) = pod_spec()["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["labelSelector"] == deployment()["spec"]["selector"]
    own = {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
    given = {"controller": {"topologySpreadConstraints": [own]}}
    assert pod_spec(given)["topologySpreadConstraints"] == [own]
    assert "topologySpreadConstraints" not in pod_spec({"controller": {"topologySpreadConstraints": []}})


def test_the_controllers_pod_takes_what_a_platform_adds() -> None:
    values = EVERYTHING["controller"]
    spec, found = pod_spec(EVERYTHING), deployment(EVERYTHING)
    for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert spec[name] == values[name], name
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert spec["volumes"] == values["extraVolumes"]
    assert spec["containers"][0]["volumeMounts"] == values["extraVolumeMounts"]
    assert spec["containers"][0]["env"][-len(values["extraEnv"]) :] == values["extraEnv"]
    assert spec["containers"][0]["image"] == f"registry.example.com/session-policy-controller@sha256:{'0' * 64}"
    assert found["metadata"]["annotations"].items() >= values["annotations"].items()
    assert found["spec"]["replicas"] == 3
    assert found["spec"]["revisionHistoryLimit"] == 0
    template = found["spec"]["template"]["metadata"]
    assert template["annotations"] == values["podAnnotations"]
    assert template["labels"]["team"] == "platform"


def test_the_controller_is_told_how_to_run_jobs() -> None:
    told = environment(EVERYTHING)
    assert told["SESSION_POLICY_JOB_IMAGE"] == "session-policy-job:1"
    assert told["SESSION_POLICY_JOB_IMAGE_PULL_POLICY"] == "IfNotPresent"
    assert told["SESSION_POLICY_JOB_IMAGE_PULL_SECRETS"] == "a,b"
    assert told["SESSION_POLICY_JOB_PRIORITY_CLASS"] == "low"
    assert told["SESSION_POLICY_JOB_SERVICE_ACCOUNT"] == "cleaner"
    assert json.loads(told["SESSION_POLICY_JOB_POD_LABELS"]) == EVERYTHING["job"]["podLabels"]
    assert json.loads(told["SESSION_POLICY_JOB_POD_ANNOTATIONS"]) == EVERYTHING["job"]["podAnnotations"]
    assert json.loads(told["SESSION_POLICY_JOB_ENV"]) == EVERYTHING["job"]["extraEnv"]


def test_the_controller_is_told_what_policies_may_ask_for() -> None:
    told = environment(EVERYTHING)
    caps = {name.removeprefix("SESSION_POLICY_JOB_"): value for name, value in told.items()}
    assert caps["MAX_CPU"] == "500m"
    assert caps["MAX_MEMORY"] == "512Mi"
    assert caps["MAX_TIMEOUT_SECONDS"] == "3600"
    assert caps["MAX_RETRIES"] == "0"  # zero is a cap
    assert caps["MAX_PARALLELISM"] == "4"
    assert caps["ALLOW_NODE_SELECTOR"] == caps["ALLOW_TOLERATIONS"] == caps["ALLOW_LOG_VOLUMES"] == "false"


def test_by_default_policies_may_ask_for_anything() -> None:
    told = environment()
    assert not [name for name in told if "_MAX_" in name]
    assert {name for name, value in told.items() if "_ALLOW_" in name and value != "true"} == {
        "SESSION_POLICY_JOB_ALLOW_TELEMETRY_ENDPOINT"  # a host of the author's choice
    }


def test_an_images_digest_wins_over_its_tag() -> None:
    digest = "sha256:" + "a" * 64
    image = {"registry": "registry.example.com/", "tag": "ignored", "digest": digest}
    told = environment({"job": {"image": image}})
    assert told["SESSION_POLICY_JOB_IMAGE"] == f"registry.example.com/session-policy-job@{digest}"


def test_the_controller_is_told_its_namespaces_and_how_to_log() -> None:
    assert environment()["SESSION_POLICY_WATCH_NAMESPACES"] == ""
    assert environment({"watchNamespaces": ["web", "shop"]})["SESSION_POLICY_WATCH_NAMESPACES"] == "web,shop"
    assert environment({"controller": {"logLevel": "debug"}})["SESSION_POLICY_LOG_LEVEL"] == "DEBUG"
    assert environment({"controller": {"resyncSeconds": 86400}})["SESSION_POLICY_RESYNC_SECONDS"] == "86400"


def test_no_variable_is_set_twice() -> None:
    names = [entry["name"] for entry in container(EVERYTHING)["env"]]
    assert len(names) == len(set(names))


def test_helm_test_runs_the_controllers_own_image_and_cleans_up() -> None:
    objects = render(EVERYTHING)
    hooks = [m for m in objects if is_hook(m)]
    assert {m["kind"] for m in hooks} == {"ServiceAccount", "Role", "RoleBinding", "Pod"}
    for hook in hooks:
        assert hook["metadata"]["annotations"]["helm.sh/hook"] == "test"
        policy = hook["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
        assert policy == "before-hook-creation,hook-succeeded"
    weights = {m["kind"]: int(m["metadata"]["annotations"]["helm.sh/hook-weight"]) for m in hooks}
    assert weights.pop("Pod") > max(weights.values())
    (pod,) = of_kind(objects, "Pod", tests=True)
    (tester,) = pod["spec"]["containers"]
    assert tester["image"] == container(EVERYTHING)["image"]
    assert tester["command"] == ["python3", "-m", selftest.__name__, NAMESPACE]
    assert pod["spec"]["tolerations"] == EVERYTHING["controller"]["tolerations"]
    assert not of_kind(render({"helmTest": {"enabled": False}}), "Pod", tests=True)
