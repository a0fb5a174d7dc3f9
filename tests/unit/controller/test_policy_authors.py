"""Who may write policies gets no more than policies: what a spec can change in the Pod, closed by default."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings

from controller.manifests.cronjob import build_cron_job
from controller.settings.controller_settings import Settings
from controller.settings.job_telemetry import JobTelemetry
from controller.settings.limits import Limits
from controller.settings.pod_extras import PodExtras
from policy.manifest import InvalidPolicyError, parse_policy
from policy.opentelemetry_env import OPERATORS_VARIABLES, RESOURCE_FIELDS
from tests.support.pod_security import violations
from tests.unit.controller.any_policy import ANY_SPEC, field_paths, spec_schema
from tests.unit.controller.builders import POLICY_UID, SETTINGS, policy_resource

Manifest = dict[str, Any]

ADMINISTRATOR_S = SETTINGS.model_copy(
    update={
        "job_priority_class": "low",
        "job_image_pull_secrets": ("registry",),
        "pod_extras": PodExtras(
            pod_labels={"team": "a"},
            pod_annotations={"note": "b"},
            env={"HTTPS_PROXY": "http://proxy"},
            service_account="cleaner",
        ),
        "job_telemetry": JobTelemetry(
            endpoint="http://collector:4318", headers_secret="otlp", resource_attributes="a=b"
        ),
        "limits": Limits(allow_telemetry_endpoint=True),
    }
)

POD = ("spec", "jobTemplate", "spec", "template", "spec")
CONTAINER = (*POD, "containers", 0)

# Everything that a spec may change in its CronJob. What is new here must be new in docs/explanation/security.md, too.
CHANGEABLE: tuple[tuple[str | int, ...], ...] = (
    ("spec", "schedule"),
    ("spec", "timeZone"),
    ("spec", "suspend"),
    ("spec", "jobTemplate", "spec", "backoffLimit"),
    ("spec", "jobTemplate", "spec", "backoffLimitPerIndex"),
    ("spec", "jobTemplate", "spec", "completionMode"),
    ("spec", "jobTemplate", "spec", "completions"),
    ("spec", "jobTemplate", "spec", "parallelism"),
    ("spec", "jobTemplate", "spec", "successPolicy"),
    ("spec", "jobTemplate", "spec", "activeDeadlineSeconds"),
    (*POD, "activeDeadlineSeconds"),
    (*POD, "nodeSelector"),
    (*POD, "tolerations"),
    (*POD, "volumes"),
    (*CONTAINER, "volumeMounts"),
    (*CONTAINER, "resources"),
    (*CONTAINER, "env"),
)

# Names that, as a field of a policy, would let its author into the Pod.
NEVER = re.compile(
    r"(?i)image|command|args|entrypoint|serviceaccount|hostpath|host(network|pid|ipc|alias)|env|label|annotation|"
    r"securitycontext|privileged|capabilit|container|template$|podspec|nodename|affinity|priority|runtimeclass|dns|"
    r"lifecycle|probe|finalizer|namespace|token|sysctl|projected|configmap|emptydir|csi"
)


def built(spec: Manifest, administrator_s: Settings = ADMINISTRATOR_S) -> Manifest:
    return build_cron_job(parse_policy(policy_resource(**spec)), POLICY_UID, administrator_s)


def part(manifest: Manifest, path: tuple[str | int, ...]) -> Any:
    found: Any = manifest
    for key in path:
        found = found[key]
    return found


def without_changeable(manifest: Manifest) -> Manifest:
    rest = copy.deepcopy(manifest)
    for path in CHANGEABLE:
        part(rest, path[:-1]).pop(path[-1], None)
    return rest


def expanded(value: str, variables: dict[str, str]) -> str:
    """As the kubelet hands a variable's value over: $(NAME) becomes the value of NAME, $$ a single $."""

    def one(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)", one, value)


@settings(deadline=None)
@given(spec=ANY_SPEC)
def test_whatever_a_policy_says_only_these_parts_of_the_cron_job_change(spec: Manifest) -> None:
    cron_job, plain = built(spec), built({})
    assert without_changeable(cron_job) == without_changeable(plain)

    pod, container = part(cron_job, POD), part(cron_job, CONTAINER)
    claim = spec.get("logs", {}).get("volumeClaim")
    assert pod["volumes"] == ([{"name": "logs", "persistentVolumeClaim": {"claimName": claim}}] if claim else [])
    assert container["volumeMounts"] == ([{"name": "logs", "mountPath": "/var/log/session-policy"}] if claim else [])
    assert container["resources"].keys() == {"requests", "limits"}
    for amounts in container["resources"].values():
        assert {"cpu", "memory"} <= amounts.keys() <= {"cpu", "memory", "ephemeral-storage"}
    for toleration in pod["tolerations"]:
        assert toleration.keys() <= {"key", "operator", "value", "effect", "tolerationSeconds"}
    assert pod["nodeSelector"] == spec.get("job", {}).get("nodeSelector", {})


def secrets_named_by(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        if "secretKeyRef" in node:
            yield node["secretKeyRef"]["name"], node["secretKeyRef"]["key"]
        for below in node.values():
            yield from secrets_named_by(below)


@settings(deadline=None)
@given(spec=ANY_SPEC)
def test_a_variable_holds_the_policy_itself_or_a_secret_it_names_and_nothing_else(spec: Manifest) -> None:
    env = {variable["name"]: variable for variable in part(built(spec), CONTAINER)["env"]}
    assert env.pop("SESSION_POLICY").keys() == {"name", "value"}
    assert env.pop("SESSION_POLICY_JOB_UID")["valueFrom"].keys() == {"fieldRef"}
    assert env.pop("HTTPS_PROXY")["value"] == "http://proxy"
    if directory := env.pop("LOG_DIRECTORY", None):
        assert directory["value"] == "/var/log/session-policy"
    check_telemetry(spec.get("telemetry", {}), {name: env.pop(name) for name in TELEMETRY if name in env})
    assert env.keys() <= {
        "DATABASE_URL", "REDIS_URL", "ALERT_OPERATIONS_URLS", "ALERT_SECURITY_URLS", "LOG_HASH_KEY",
    }  # fmt: skip
    named = set(secrets_named_by(spec))
    for variable in env.values():
        reference = variable["valueFrom"]["secretKeyRef"]
        assert variable.keys() == {"name", "valueFrom"}
        assert reference.keys() == {"name", "key"}  # a Pod's Secret is always one of its own namespace
        assert (reference["name"], reference["key"]) in named


TELEMETRY = OPERATORS_VARIABLES | set(RESOURCE_FIELDS.values())


def check_telemetry(wanted: Manifest, env: Manifest) -> None:
    """Of telemetry an author has three things to say: whether, how often, and where to, if that is allowed."""
    if not wanted.get("enabled", True):
        assert env == {"OTEL_SDK_DISABLED": {"name": "OTEL_SDK_DISABLED", "value": "true"}}
        return
    assert env.pop("OTEL_EXPORTER_OTLP_ENDPOINT")["value"] == wanted.get("endpoint", "http://collector:4318")
    assert ("OTEL_EXPORTER_OTLP_HEADERS" in env) is ("endpoint" not in wanted)
    if headers := env.pop("OTEL_EXPORTER_OTLP_HEADERS", None):
        assert headers["valueFrom"]["secretKeyRef"]["name"] == "otlp"
    ratio = float(env.pop("OTEL_TRACES_SAMPLER_ARG", {"value": "1"})["value"])
    assert round(100 * ratio) == wanted.get("samplingPercent", 100)
    assert env.pop("OTEL_TRACES_SAMPLER", {"value": "parentbased_traceidratio"})["value"] == "parentbased_traceidratio"
    values = {name: variable["value"] for name, variable in env.items() if "value" in variable}
    assert values == {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_RESOURCE_ATTRIBUTES": "a=b",
        "SESSION_POLICY_CRON_JOB_NAME": "shop",
    }
    assert all(env[name]["valueFrom"].keys() == {"fieldRef"} for name in env.keys() - values.keys())


@settings(deadline=None)
@given(spec=ANY_SPEC)
def test_the_container_gets_the_policy_as_it_was_written(spec: Manifest) -> None:
    policy = parse_policy(policy_resource(**spec))
    found: dict[str, str] = {}
    # In the worst order: as if every Secret's value were known before.
    secret = dict.fromkeys(["DATABASE_URL", "REDIS_URL", "SESSION_POLICY_JOB_UID", "KUBERNETES_SERVICE_HOST"], "canary")
    for variable in part(built(spec), CONTAINER)["env"]:
        found[variable["name"]] = expanded(variable.get("value", ""), secret)
    assert parse_policy(json.loads(found["SESSION_POLICY"])) == policy


@settings(deadline=None)
@given(spec=ANY_SPEC)
def test_every_policy_s_pod_is_one_container_of_the_operator_s_under_pod_security_restricted(spec: Manifest) -> None:
    template = part(built(spec), POD[:-1])
    assert violations(template) == []
    assert not {"initContainers", "ephemeralContainers"} & template["spec"].keys()
    (container,) = template["spec"]["containers"]
    assert (container["image"], container["args"]) == (SETTINGS.job_image, ["run"])
    assert "command" not in container
    assert template["spec"]["automountServiceAccountToken"] is False


Change = Callable[[Manifest], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda pod: pod.update(hostNetwork=True),
        lambda pod: pod.update(hostPID=True),
        lambda pod: pod["volumes"].append({"name": "v", "hostPath": {"path": "/"}}),
        lambda pod: pod["securityContext"].update(runAsUser=0),
        lambda pod: pod["securityContext"].pop("runAsNonRoot"),
        lambda pod: pod["securityContext"].pop("seccompProfile"),
        lambda pod: pod["securityContext"].update(seccompProfile={"type": "Unconfined"}),
        lambda pod: pod["securityContext"].update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
        lambda pod: pod["containers"][0]["securityContext"].update(privileged=True),
        lambda pod: pod["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
        lambda pod: pod["containers"][0]["securityContext"].update(capabilities={"drop": ["NET_RAW"]}),
        lambda pod: pod["containers"][0]["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
        lambda pod: pod["containers"][0].update(ports=[{"containerPort": 1, "hostPort": 1}]),
        lambda pod: pod["containers"].append({"name": "plain", "image": "x"}),
        lambda pod: pod.update(initContainers=[{"name": "plain", "image": "x"}]),
    ],
)
def test_the_test_of_pod_security_sees_what_is_forbidden(change: Change) -> None:
    template = part(built({}), POD[:-1])
    change(template["spec"])
    assert violations(template) != []


def test_no_field_of_a_policy_is_one_of_a_pod_s_that_gives_rights() -> None:
    paths = list(field_paths(spec_schema()))
    assert {"stores.database.urlFrom.secretKeyRef.name", "job.tolerations[].key", "logs.volumeClaim"} <= set(paths)
    assert [path for path in paths if NEVER.search(path.rsplit(".", 1)[-1])] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.update(image="evil"),
        lambda spec: spec["job"].update(image="evil"),
        lambda spec: spec["job"].update(command=["sh"]),
        lambda spec: spec["job"].update(serviceAccountName="admin"),
        lambda spec: spec["job"].update(env=[{"name": "LD_PRELOAD", "value": "x"}]),
        lambda spec: spec["job"].update(podLabels={"app": "shop"}),
        lambda spec: spec["job"].update(annotations={"a": "b"}),
        lambda spec: spec["job"].update(volumes=[{"name": "v", "hostPath": {"path": "/"}}]),
        lambda spec: spec["job"].update(securityContext={"privileged": True}),
        lambda spec: spec["job"].update(resources={"limits": {"nvidia.com/gpu": 1}}),
        lambda spec: spec["job"].update(resources={"claims": [{"name": "gpu"}]}),
        lambda spec: spec["logs"].update(hostPath="/"),
        lambda spec: spec["telemetry"].update(headersFrom={"secretKeyRef": {"name": "a", "key": "b"}}),
        lambda spec: spec["telemetry"].update(resourceAttributes={"a": "b"}),
        lambda spec: spec["stores"]["database"].update(url="postgresql://somewhere.else/db"),
        lambda spec: spec["stores"]["database"]["urlFrom"].update(configMapKeyRef={"name": "a", "key": "b"}),
        lambda spec: spec["stores"]["database"]["urlFrom"]["secretKeyRef"].update(namespace="kube-system"),
        lambda spec: spec["stores"]["database"]["urlFrom"]["secretKeyRef"].update(optional=True),
    ],
)
def test_what_is_no_field_of_a_policy_is_refused(change: Change) -> None:
    resource = policy_resource(job={}, logs={}, telemetry={})
    parse_policy(resource)
    resource["spec"] = copy.deepcopy(resource["spec"])
    change(resource["spec"])
    with pytest.raises(InvalidPolicyError, match=r"unknown field|Input should be"):
        parse_policy(resource)


def test_a_policy_s_own_labels_and_annotations_stay_its_own() -> None:
    resource = policy_resource()
    plain = build_cron_job(parse_policy(resource), POLICY_UID, SETTINGS)
    resource["metadata"] |= {
        "labels": {"app": "shop", "sidecar.istio.io/inject": "true"},
        "annotations": {"linkerd.io/inject": "enabled"},
        "finalizers": ["x"],
        "generateName": "y",
    }
    assert build_cron_job(parse_policy(resource), POLICY_UID, SETTINGS) == plain


def test_a_policy_cannot_have_the_variables_of_another_put_into_its_own_text() -> None:
    keys = {"session": "$(DATABASE_URL)$$(X)$$:{id}"}
    stores = {"redis": {"urlFrom": {"secretKeyRef": {"name": "a", "key": "b"}}, "keys": keys}}
    manifest = part(built({"stores": stores}), CONTAINER)["env"][0]["value"]
    assert "$" not in manifest
    assert json.loads(manifest)["spec"]["stores"]["redis"]["keys"] == keys
