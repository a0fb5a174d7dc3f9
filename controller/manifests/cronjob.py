"""Builds the CronJob of a policy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from controller.manifests.owner_reference import controller_reference
from controller.settings.controller_settings import Settings
from controller.settings.limits import Limits, NotAllowedError
from controller.settings.quantity import Quantity, quantity_value
from policy.exit_codes import EXIT_BAD_CONFIGURATION
from policy.manifest import InvalidPolicyError, SessionPolicy
from policy.names import (
    ALERT_OPERATIONS_URLS_ENV,
    ALERT_SECURITY_URLS_ENV,
    API_VERSION,
    CONTAINER_NAME,
    DATABASE_URL_ENV,
    JOB_UID_ENV,
    KIND,
    LOG_DIRECTORY,
    LOG_DIRECTORY_ENV,
    LOG_HASH_KEY_ENV,
    POLICY_LABEL,
    REDIS_URL_ENV,
    SPEC_ENV,
    TERMINATION_MESSAGE_PATH,
    cron_job_name,
)
from policy.report import printable
from policy.spec import JobOptions, Resources
from policy.stores import ValueSource

MANAGED_BY: Final = "session-policy-operator"

# A run that is a few minutes late (controller manager restarted, previous run still going) is still wanted; one that
# is later than this is left to the next tick, so that resuming a policy does not start the run of some hours ago.
STARTING_DEADLINE_SECONDS: Final = 300

# A controller that was down still has to read finished Jobs.
_KEPT_JOBS: Final = 3

# What SIGTERM leaves the run to finish its batch and write its report.
_GRACE_SECONDS: Final = 30

# What scheduling and pulling the image may take for each attempt before the whole Job is given up.
_START_SECONDS: Final = 120

# The Job controller waits this long before the second attempt, twice as long before the next, and so on.
_FIRST_BACKOFF_SECONDS: Final = 10
_LONGEST_BACKOFF_SECONDS: Final = 600

_USER_ID: Final = 65532

_LOG_VOLUME: Final = "logs"

# 15 % of a CPU and 200 MB are the targets for a run.
_DEFAULT_REQUESTS: Final[Mapping[str, Quantity]] = {"cpu": "150m", "memory": "100Mi"}
_DEFAULT_LIMITS: Final[Mapping[str, Quantity]] = {"cpu": "150m", "memory": "200Mi"}

# The kernel takes no environment variable longer than 128 KiB; the container could not start.
_MAX_SPEC_BYTES: Final = 120 * 1024


def build_cron_job(policy: SessionPolicy, policy_uid: str, settings: Settings) -> dict[str, Any]:
    """The manifest of the CronJob that runs a policy.

    Fields that may be empty are stated nevertheless, so that what the policy no longer says shows as a difference.

    Raises:
        NotAllowedError: the policy asks for more than the operator's configuration allows.
        InvalidPolicyError: the policy is too large for an environment variable, or has an invalid quantity.
    """
    spec = policy.spec
    name = cron_job_name(policy.metadata.name)
    labels = _labels(name)
    job_spec = _job_spec(policy, labels, settings)
    if excesses := settings.limits.excesses(job_spec):
        raise NotAllowedError(excesses)
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {
            "name": name,
            "namespace": policy.metadata.namespace,
            "labels": dict(labels),
            "ownerReferences": [controller_reference(API_VERSION, KIND, policy.metadata.name, policy_uid)],
        },
        "spec": {
            "schedule": spec.schedule,
            "timeZone": spec.time_zone,
            "suspend": spec.suspend,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": STARTING_DEADLINE_SECONDS,
            "successfulJobsHistoryLimit": _KEPT_JOBS,
            "failedJobsHistoryLimit": _KEPT_JOBS,
            "jobTemplate": {"metadata": {"labels": dict(labels)}, "spec": job_spec},
        },
    }


def _job_spec(policy: SessionPolicy, labels: Mapping[str, str], settings: Settings) -> dict[str, Any]:
    return {
        **_attempts(policy.spec.job),
        "activeDeadlineSeconds": job_deadline_seconds(policy.spec.job),
        "podFailurePolicy": _pod_failure_policy(),
        "template": {
            "metadata": {
                "labels": {**settings.pod_extras.pod_labels, **labels},
                "annotations": dict(settings.pod_extras.pod_annotations),
            },
            "spec": _pod_spec(policy, settings),
        },
    }


def _attempts(job: JobOptions) -> dict[str, Any]:
    """How many Pods the Job has, and how often each is tried again.

    Several share the work of the first one, which alone reports. It decides how the Job ends: each Pod has retries of
    its own, and when the first has succeeded, those that still run or wait for a node are not needed any more.
    """
    if job.parallelism == 1:
        return {"backoffLimit": job.retries}
    return {
        "completionMode": "Indexed",
        "completions": job.parallelism,
        "parallelism": job.parallelism,
        "backoffLimitPerIndex": job.retries,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
    }


def job_deadline_seconds(job: JobOptions) -> int:
    """Time limit of a whole Job, in seconds: all attempts and the pauses between them.

    It ends what no other limit would, such as a Pod that no node has room for.
    """
    attempt = job.timeout_seconds + _GRACE_SECONDS + _START_SECONDS
    pauses = [min(_FIRST_BACKOFF_SECONDS << n, _LONGEST_BACKOFF_SECONDS) for n in range(job.retries)]
    return attempt * (job.retries + 1) + sum(pauses)


def _labels(name: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "session-policy",
        "app.kubernetes.io/component": "job",
        "app.kubernetes.io/managed-by": MANAGED_BY,
        POLICY_LABEL: name,
    }


def _pod_failure_policy() -> dict[str, Any]:
    return {
        "rules": [
            {
                # Invalid configuration: another attempt would end the same way.
                "action": "FailJob",
                "onExitCodes": {
                    "containerName": CONTAINER_NAME,
                    "operator": "In",
                    "values": [EXIT_BAD_CONFIGURATION],
                },
            },
            {
                # The node was drained or ran full: not the run's fault, so not one of its attempts.
                "action": "Ignore",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            },
        ]
    }


def _pod_spec(policy: SessionPolicy, settings: Settings) -> dict[str, Any]:
    job = policy.spec.job
    claim = policy.spec.logs.volume_claim
    return {
        "restartPolicy": "Never",
        # The run's own deadline is earlier; this one is for a run that does not keep it.
        "activeDeadlineSeconds": job.timeout_seconds,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        # By both names: the server keeps the second, an old one, equal to the first, and would take it for an answer
        # where the first is empty.
        "serviceAccountName": settings.pod_extras.service_account,
        "serviceAccount": settings.pod_extras.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": settings.job_priority_class,
        "imagePullSecrets": [{"name": name} for name in settings.job_image_pull_secrets],
        "nodeSelector": dict(job.node_selector),
        "tolerations": [toleration.to_json_object() for toleration in job.tolerations],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER_ID,
            "runAsGroup": _USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [{"name": _LOG_VOLUME, "persistentVolumeClaim": {"claimName": claim}}] if claim else [],
        "containers": [
            {
                "name": CONTAINER_NAME,
                "image": settings.job_image,
                "imagePullPolicy": settings.job_image_pull_policy,
                "args": ["run"],
                "env": _environment(policy, settings),
                "volumeMounts": [{"name": _LOG_VOLUME, "mountPath": LOG_DIRECTORY}] if claim else [],
                "resources": _resources(job.resources, settings.limits),
                "terminationMessagePath": TERMINATION_MESSAGE_PATH,
                # The log could hold anything; only what the run writes on purpose is a report.
                "terminationMessagePolicy": "File",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }


def _environment(policy: SessionPolicy, settings: Settings) -> list[dict[str, Any]]:
    manifest = json.dumps(policy.to_json_object(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # The kubelet replaces $(NAME) in a variable's value, and $$; the policy must arrive as it was written.
    manifest = manifest.replace("$", "\\u0024")
    size = len(manifest.encode())
    if size > _MAX_SPEC_BYTES:
        raise InvalidPolicyError(
            [
                f"spec: {size} bytes are more than the {_MAX_SPEC_BYTES} that a container takes; "
                "shorten concurrency.exemptUsers"
            ]
        )
    stores = policy.spec.stores
    environment: list[dict[str, Any]] = [
        {"name": SPEC_ENV, "value": manifest},
        {
            "name": JOB_UID_ENV,
            "valueFrom": {
                "fieldRef": {
                    "apiVersion": "v1",
                    "fieldPath": "metadata.labels['batch.kubernetes.io/controller-uid']",
                }
            },
        },
    ]
    alerts, logs = policy.spec.alerts, policy.spec.logs
    secrets = {
        DATABASE_URL_ENV: stores.database and stores.database.url_from,
        REDIS_URL_ENV: stores.redis and stores.redis.url_from,
        ALERT_OPERATIONS_URLS_ENV: alerts.operations and alerts.operations.urls_from,
        ALERT_SECURITY_URLS_ENV: alerts.security and alerts.security.urls_from,
        LOG_HASH_KEY_ENV: logs.hash_key_from,
    }
    environment += [_secret_variable(name, source) for name, source in secrets.items() if source]
    if logs.volume_claim:
        environment.append({"name": LOG_DIRECTORY_ENV, "value": LOG_DIRECTORY})
    environment += settings.job_telemetry.variables(policy.spec.telemetry, cron_job_name(policy.metadata.name))
    return environment + _variables(settings.pod_extras.env)


def _secret_variable(name: str, source: ValueSource) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": source.secret_key_ref.to_json_object()}}


def _variables(env: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in sorted(env.items())]


def _resources(resources: Resources, most: Limits) -> dict[str, dict[str, Quantity]]:
    """The policy's resources over the defaults.

    A default gives way where request and limit would contradict, and where it is over the operator's limit.
    """
    requests: dict[str, Quantity] = resources.requests.to_json_object()
    limits: dict[str, Quantity] = resources.limits.to_json_object()
    try:
        for amount in (*requests.values(), *limits.values()):
            quantity_value(amount)
    except ValueError as error:
        raise InvalidPolicyError([f"spec.job.resources: {printable(str(error), 100)}"]) from error
    for name, default in _DEFAULT_REQUESTS.items():
        if name not in requests:
            requests[name] = min(default, limits.get(name, default), most.resource(name) or default, key=quantity_value)
    for name, default in _DEFAULT_LIMITS.items():
        if name not in limits:
            enough = max(default, requests[name], key=quantity_value)
            limits[name] = min(enough, most.resource(name) or enough, key=quantity_value)
    return {"requests": requests, "limits": limits}
