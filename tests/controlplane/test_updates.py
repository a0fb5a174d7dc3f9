"""Every field of a policy, changed and taken away: the CronJob follows, and what is known of earlier runs stays.

The fields are taken from the CustomResourceDefinition, so that a new field of the policy is a new update here.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from policy.crd import crd
from policy.manifest import parse_policy
from tests.controlplane.conftest import StartController
from tests.controlplane.kubelet import Kubelet, report
from tests.controlplane.policies import NEVER, Policies, Policy
from tests.controlplane.somebody import RefusedError, Somebody
from tests.support.kube import Kubectl
from tests.support.patience import PATIENCE_SECONDS

Path = tuple[str, ...]

_SPEC_SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]

# As many policies are updated at the same time, each in one way.
_AT_ONCE = 12


def secret(name: str) -> dict[str, Any]:
    return {"secretKeyRef": {"name": name, "key": "some-key"}}


def time_column(name: str) -> dict[str, Any]:
    return {"name": name, "encoding": "NaiveTimestamp", "timeZone": "Asia/Seoul"}


# Every field of the spec, none with its default: that it is complete is tested below.
FULL: dict[str, Any] = {
    "schedule": NEVER,
    "timeZone": "Europe/Berlin",
    "suspend": False,
    "dryRun": True,
    "profile": "Finance",
    "sessionTimeoutSeconds": 600,
    "absoluteTimeoutSeconds": 6000,
    "cleanupBatchSize": 10,
    "cleanup": {"strategy": "IdOrder", "batchSizing": "Fixed", "throttlePercent": 50},
    "maxConcurrentSessions": 3,
    "concurrency": {"onExceed": "EvictOldest", "exemptUsers": ["robot"]},
    "duplicates": {"action": "KeepNewest"},
    "rules": [{"type": "Revoked", "action": "Delete"}],
    "stores": {
        "database": {
            "urlFrom": secret("database"),
            "preset": "Django",
            "table": {
                "schema": "web",
                "name": "sessions",
                "columns": {
                    "id": {"name": "id"},
                    "userId": {"name": "data", "path": ["user", "id"]},
                    "createdAt": time_column("created"),
                    "lastAccessedAt": time_column("used"),
                    "expiresAt": time_column("expires"),
                    "client": {"name": "client"},
                    "address": {"name": "address"},
                    "revoked": {"name": "revoked", "inverted": True},
                    "tenant": {"name": "tenant"},
                    "role": {"name": "role"},
                },
            },
        },
        "redis": {
            "urlFrom": secret("redis"),
            "mode": "Sentinel",
            "sentinelMaster": "main",
            "preset": "ConnectRedis",
            "keys": {"session": "s:{id}", "userIndex": "u:{user}", "accessLog": "a:{id}"},
            "fields": {
                "userId": "user",
                "createdAt": {"name": "c", "encoding": "Timestamp"},
                "lastAccessedAt": {"name": "l", "encoding": "Timestamp"},
                "expiresAt": {"name": "e", "encoding": "Timestamp"},
            },
        },
    },
    "sync": {"onMissingRedisSession": "Delete", "defaultTtlSeconds": 3600, "graceSeconds": 7},
    "safety": {
        "maxDeletePercent": 30,
        "alwaysAllowedDeletions": 30,
        "maxDeletions": 30,
        "clockSkewSeconds": 30,
    },
    "retries": {
        "deletion": {"attempts": 1, "delaySeconds": 1},
        "database": {"attempts": 1, "delaySeconds": 1},
        "redis": {"attempts": 1, "delaySeconds": 1},
    },
    "statistics": {"enabled": False, "retentionDays": 9},
    "alerts": {
        "operations": {"urlsFrom": secret("operations")},
        "security": {"urlsFrom": secret("security")},
        "thresholds": {
            "durationSeconds": 9,
            "failedPercent": 9,
            "activeSessions": 9,
            "redisMemoryMegabytes": 9,
            "cacheHitPercent": 9,
            "creationRateFactor": 9,
        },
        "repeatAfterSeconds": 9,
        "runbookUrl": "https://runbooks.example/",
    },
    "logs": {
        "hashKeyFrom": secret("hash-key"),
        "volumeClaim": "session-logs",
        "deletedSessions": False,
        "runRetentionDays": 9,
        "errorRetentionDays": 9,
        "cleanupRetentionDays": 9,
        "alertRetentionDays": 9,
    },
    "telemetry": {"enabled": True, "samplingPercent": 9, "endpoint": "http://collector.web:4318"},
    "job": {
        "timeoutSeconds": 99,
        "retries": 1,
        "parallelism": 2,
        "resources": {
            "requests": {"cpu": "10m", "memory": "10Mi", "ephemeral-storage": "10Mi"},
            "limits": {"cpu": "900m", "memory": "900Mi", "ephemeral-storage": "900Mi"},
        },
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "batch", "operator": "Exists"}],
    },
}

# Values that a field's type does not tell.
_CHANGED: dict[Path, Any] = {
    ("schedule",): "1 1 29 2 *",
    ("timeZone",): "Asia/Seoul",
    ("profile",): "Games",
    ("concurrency", "exemptUsers"): ["robot", "cron"],
    ("rules",): [{"type": "Revoked", "action": "Report"}],
    ("stores", "database", "table", "columns", "userId", "path"): ["sub"],
    ("stores", "redis", "keys", "session"): "t:{id}",
    ("stores", "redis", "keys", "userIndex"): "v:{user}",
    ("stores", "redis", "keys", "accessLog"): "b:{id}",
    ("telemetry", "endpoint"): "http://other.web:4318/otlp",
    ("job", "resources", "requests", "cpu"): "20m",
    ("job", "resources", "requests", "memory"): "20Mi",
    ("job", "resources", "requests", "ephemeral-storage"): "20Mi",
    ("job", "resources", "limits", "cpu"): "800m",
    ("job", "resources", "limits", "memory"): "800Mi",
    ("job", "resources", "limits", "ephemeral-storage"): "800Mi",
    ("job", "nodeSelector"): {"disk": "hdd", "zone": "a"},
    ("job", "tolerations"): [{"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 5}],
}

_COLUMNS: Path = ("stores", "database", "table", "columns")
_SENTINEL: Path = ("stores", "redis", "sentinelMaster")
_MODE: Path = ("stores", "redis", "mode")

# Other fields need these: they are changed and removed together, below.
_NOT_ALONE: tuple[Path, ...] = (
    _MODE,
    _SENTINEL,
    ("stores", "database", "table", "name"),
    (*_COLUMNS, "createdAt"),
    (*_COLUMNS, "lastAccessedAt"),
)
_TOGETHER: dict[str, dict[Path, Any]] = {
    "change redis.mode": {_MODE: "Cluster", _SENTINEL: None},
    "remove redis.mode": {_MODE: None, _SENTINEL: None},
    "change redis.sentinelMaster": {_SENTINEL: "other"},
    "change table.name": {("stores", "database", "table", "name"): "other"},
    "remove table.name": {("stores", "database", "table", "name"): None, _COLUMNS: None},
    "remove columns.createdAt": {
        (*_COLUMNS, "createdAt"): None,
        ("absoluteTimeoutSeconds",): None,
        ("concurrency", "onExceed"): "Report",
    },
    "remove columns.lastAccessedAt": {(*_COLUMNS, "lastAccessedAt"): None, ("sessionTimeoutSeconds",): None},
}

# What the operator gives a container whose policy does not say.
_DEFAULT_RESOURCES: dict[str, dict[str, str]] = {
    "requests": {"cpu": "150m", "memory": "100Mi"},
    "limits": {"cpu": "150m", "memory": "200Mi"},
}

_SECRET_VARIABLES: dict[str, Path] = {
    "DATABASE_URL": ("stores", "database", "urlFrom"),
    "REDIS_URL": ("stores", "redis", "urlFrom"),
    "ALERT_OPERATIONS_URLS": ("alerts", "operations", "urlsFrom"),
    "ALERT_SECURITY_URLS": ("alerts", "security", "urlsFrom"),
    "LOG_HASH_KEY": ("logs", "hashKeyFrom"),
}


@dataclass(frozen=True)
class Update:
    """A spec, and in what it differs from `FULL`."""

    what: str
    spec: dict[str, Any]


def fields(schema: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """All fields of a schema, with those below them."""
    for name, below in schema.get("properties", {}).items():
        yield (*path, name), below
        yield from fields(below, (*path, name))


def spec_fields() -> dict[Path, dict[str, Any]]:
    return dict(fields(_SPEC_SCHEMA))


def is_required(path: Path) -> bool:
    """Whether the field cannot be left out of the section that it is in."""
    above = spec_fields()[path[:-1]] if len(path) > 1 else _SPEC_SCHEMA
    return path[-1] in above.get("required", ())


def value_at(tree: Any, path: Path) -> Any:
    for name in path:
        tree = (tree or {}).get(name)
    return tree


def with_values(values: Mapping[Path, Any]) -> dict[str, Any]:
    """`FULL` with other values there; None removes a field."""
    spec = copy.deepcopy(FULL)
    for path, value in values.items():
        parent = value_at(spec, path[:-1])
        if value is None:
            del parent[path[-1]]
        else:
            parent[path[-1]] = value
    return spec


def another_value(path: Path, schema: dict[str, Any]) -> Any:
    now = value_at(FULL, path)
    if path in _CHANGED:
        return _CHANGED[path]
    if "enum" in schema:
        return next(value for value in schema["enum"] if value != now)
    if isinstance(now, bool):
        return not now
    return now + 1 if isinstance(now, int) else f"{now}x"


def updates() -> list[Update]:
    """Each value changed, each field that may be left out left out, from single values to whole sections."""
    found = [Update(what, with_values(values)) for what, values in _TOGETHER.items()]
    for path, schema in spec_fields().items():
        name = ".".join(path)
        if "properties" not in schema and path not in _NOT_ALONE:
            found.append(Update(f"change {name}", with_values({path: another_value(path, schema)})))
        if not is_required(path) and path not in _NOT_ALONE:
            found.append(Update(f"remove {name}", with_values({path: None})))
    return found


def test_the_full_policy_names_every_field() -> None:
    missing = [".".join(path) for path in spec_fields() if value_at(FULL, path) is None]
    assert missing == [], "give FULL a value for each new field of the policy"


def shown(cron_job: dict[str, Any]) -> dict[str, Any]:
    """What a CronJob says, as far as policies decide it."""
    spec = cron_job["spec"]
    job = spec["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    container = pod["containers"][0]
    secrets = {v["name"]: v["valueFrom"] for v in container["env"] if "secretKeyRef" in v.get("valueFrom", {})}
    return {
        "schedule": spec["schedule"],
        "timeZone": spec["timeZone"],
        "suspend": spec["suspend"],
        "retries": job["backoffLimitPerIndex" if "backoffLimitPerIndex" in job else "backoffLimit"],
        "parallelism": job.get("parallelism", 1),
        "completions": job.get("completions", 1),
        "timeout": pod["activeDeadlineSeconds"],
        "resources": container["resources"],
        "nodeSelector": pod.get("nodeSelector", {}),
        "tolerations": pod.get("tolerations", []),
        "secrets": secrets,
        "claims": [volume["persistentVolumeClaim"]["claimName"] for volume in pod.get("volumes", [])],
        "mounts": len(container.get("volumeMounts", [])),
        "log directory": sum(variable["name"] == "LOG_DIRECTORY" for variable in container["env"]),
        "telemetry": {v["name"]: v["value"] for v in container["env"] if v["name"].startswith("OTEL_")},
    }


def expected(stored: dict[str, Any]) -> dict[str, Any]:
    """What the CronJob of this policy, as the API server has stored it, must say."""
    spec = stored["spec"]
    job, claim = spec["job"], value_at(spec, ("logs", "volumeClaim"))
    given = job.get("resources", {})
    return {
        "schedule": spec["schedule"],
        "timeZone": spec["timeZone"],
        "suspend": spec["suspend"],
        "retries": job["retries"],
        "parallelism": job["parallelism"],
        "completions": job["parallelism"],
        "timeout": job["timeoutSeconds"],
        "resources": {kind: default | given.get(kind, {}) for kind, default in _DEFAULT_RESOURCES.items()},
        "nodeSelector": job.get("nodeSelector", {}),
        "tolerations": [
            {name: value for name, value in toleration.items() if value is not None}
            for toleration in job.get("tolerations", [])
        ],
        "secrets": {name: ref for name, path in _SECRET_VARIABLES.items() if (ref := value_at(spec, path))},
        "claims": [claim] if claim else [],
        "mounts": int(claim is not None),
        "log directory": int(claim is not None),
        "telemetry": telemetry_variables(spec["telemetry"]),
    }


def telemetry_variables(telemetry: dict[str, Any]) -> dict[str, str]:
    if not telemetry["enabled"]:
        return {"OTEL_SDK_DISABLED": "true"}
    if "endpoint" not in telemetry:
        return {}
    found = {"OTEL_EXPORTER_OTLP_ENDPOINT": telemetry["endpoint"], "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    if "samplingPercent" in telemetry:
        found["OTEL_TRACES_SAMPLER"] = "parentbased_traceidratio"
        found["OTEL_TRACES_SAMPLER_ARG"] = str(telemetry["samplingPercent"] / 100)
    return found


def manifest_in(cron_job: dict[str, Any]) -> dict[str, Any]:
    """The policy that the container is handed."""
    env = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["env"]
    (text,) = [variable["value"] for variable in env if variable["name"] == "SESSION_POLICY"]
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture
def own(cluster: Kubectl, namespace: str, start_controller: StartController) -> Policies:
    start_controller(namespace, SESSION_POLICY_JOB_ALLOW_TELEMETRY_ENDPOINT="true")
    return Policies(cluster, namespace)


@pytest.fixture
def somebody(cluster: Kubectl) -> Somebody:
    return Somebody(cluster.kubeconfig)


def followed(policy: Policy) -> str:
    """Empty once the policy's newest generation is Ready and its CronJob says the same; else what is missing."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        stored = policy.get()
        generation = stored["metadata"]["generation"]
        ready = [c for c in stored["status"]["conditions"] if c["type"] == "Ready"]
        if [(c["status"], c["observedGeneration"]) for c in ready] == [("True", generation)]:
            break
        if time.monotonic() > deadline:
            return f"not Ready in generation {generation}: {ready}"
        time.sleep(0.02)
    # From here on nothing is waited for: Ready says that it is done.
    cron_job = policy.cron_job()
    problems = [f"observedGeneration is {stored['status']['observedGeneration']}"]
    problems *= stored["status"]["observedGeneration"] != generation
    says, must = shown(cron_job), expected(stored)
    problems += [f"{name}: {says[name]}, not {must[name]}" for name in must if says[name] != must[name]]
    handed = manifest_in(cron_job)
    if handed["metadata"]["generation"] != generation or handed["spec"] != parse_policy(stored).spec.to_json_object():
        problems.append(f"the container is handed {handed}")
    return "; ".join(problems)


@pytest.mark.exhaustive
def test_r1_1_every_field_can_be_changed_and_removed(own: Policies, somebody: Somebody) -> None:
    kubelet = Kubelet(own.kubectl, own.namespace)
    policies = [own.ready(f"updated-{number}", **FULL) for number in range(_AT_ONCE)]
    job = policies[0].request_run()
    kubelet.finish(job, report())
    policies[0].await_record(job)
    runs = {name: policies[0].status()[name] for name in ("lastRun", "history", "lastSuccessTime")}
    planned = updates()
    wrong = []
    for first in range(0, len(planned), _AT_ONCE):
        batch = list(zip(policies, planned[first : first + _AT_ONCE], strict=False))
        for policy, update in batch:
            operations = [{"op": "replace", "path": "/spec", "value": update.spec}]
            try:
                somebody.change("sessionpolicies", own.namespace, policy.name, operations)
            except RefusedError as error:
                error.add_note(f"{update.what}: if other fields need it, name it in _NOT_ALONE and _TOGETHER")
                raise
        for policy, update in batch:
            if problem := followed(policy):
                wrong.append(f"{update.what}: {problem}")
    assert wrong == []
    assert len(planned) > 150
    assert {name: policies[0].status()[name] for name in runs} == runs


def test_of_many_edits_in_a_row_the_last_one_stays(own: Policies, somebody: Somebody) -> None:
    policy = own.ready()
    for minute in range(30):
        somebody.merge("sessionpolicies", own.namespace, policy.name, {"spec": {"schedule": f"{minute} 1 29 2 *"}})
    assert followed(policy) == ""
    assert policy.cron_job()["spec"]["schedule"] == "29 1 29 2 *"


def test_an_edit_that_changes_nothing_writes_nothing(own: Policies, somebody: Somebody) -> None:
    policy = own.ready()
    before = policy.get()["metadata"]["resourceVersion"], policy.cron_job()["metadata"]["resourceVersion"]
    policy.apply()
    own.ready()  # by now the controller has had the time to write
    assert (policy.get()["metadata"]["resourceVersion"], policy.cron_job()["metadata"]["resourceVersion"]) == before
