"""The CronJob made from a policy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.manifests.cronjob import build_cron_job, job_deadline_seconds
from policy.manifest import InvalidPolicyError, parse_policy
from policy.spec import JobOptions
from tests.unit.controller.builders import POLICY_UID, SETTINGS, typed_policy


def built(name: str = "shop", **spec: Any) -> dict[str, Any]:
    return build_cron_job(typed_policy(name, **spec), POLICY_UID, SETTINGS)


def pod_spec(cron_job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def container(cron_job: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod_spec(cron_job)["containers"]
    assert isinstance(only, dict)
    return only


def variables(cron_job: dict[str, Any]) -> dict[str, Any]:
    return {v["name"]: v.get("value", v.get("valueFrom")) for v in container(cron_job)["env"]}


def test_r1_1_schedule_zone_and_suspend_are_the_policy_s() -> None:
    spec = built(schedule="5 4 * * 1", timeZone="Europe/Berlin", suspend=True)["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["suspend"]) == ("5 4 * * 1", "Europe/Berlin", True)


def test_r2_defaults_are_ten_minutes_two_retries_and_never_two_at_once() -> None:
    cron_job = built()
    assert cron_job["spec"]["schedule"] == "50 * * * *"
    assert cron_job["spec"]["concurrencyPolicy"] == "Forbid"
    assert cron_job["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 2
    assert pod_spec(cron_job)["activeDeadlineSeconds"] == 600


def test_r2_default_resources_are_15_percent_of_a_cpu_and_200_mb() -> None:
    assert container(built())["resources"] == {
        "requests": {"cpu": "150m", "memory": "100Mi"},
        "limits": {"cpu": "150m", "memory": "200Mi"},
    }


@pytest.mark.parametrize(
    ("given", "requests", "limits"),
    [
        ({"limits": {"memory": "1Gi"}}, {"cpu": "150m", "memory": "100Mi"}, {"cpu": "150m", "memory": "1Gi"}),
        ({"limits": {"cpu": "0.1"}}, {"cpu": "0.1", "memory": "100Mi"}, {"cpu": "0.1", "memory": "200Mi"}),
        ({"requests": {"memory": "2Gi"}}, {"cpu": "150m", "memory": "2Gi"}, {"cpu": "150m", "memory": "2Gi"}),
        (
            {"requests": {"ephemeral-storage": 1}},
            {"cpu": "150m", "memory": "100Mi", "ephemeral-storage": 1},
            {"cpu": "150m", "memory": "200Mi"},
        ),
    ],
)
def test_default_resources_never_contradict_the_policy_s(
    given: dict[str, Any], requests: dict[str, Any], limits: dict[str, Any]
) -> None:
    assert container(built(job={"resources": given}))["resources"] == {"requests": requests, "limits": limits}


def test_a_quantity_that_is_none_is_the_policy_s_problem() -> None:
    with pytest.raises(InvalidPolicyError, match=r"spec\.job\.resources: not a quantity: '1e1\.5'"):
        built(job={"resources": {"limits": {"cpu": "1e1.5"}}})


def test_the_container_reads_the_policy_back_as_it_was() -> None:
    policy = typed_policy(dryRun=True, profile="Finance", stores=_stores(redis=True))
    cron_job = build_cron_job(policy, POLICY_UID, SETTINGS)
    assert parse_policy(json.loads(variables(cron_job)["SESSION_POLICY"])) == policy


def test_the_manifest_s_text_does_not_depend_on_the_order_of_its_fields() -> None:
    one = variables(built(dryRun=True, cleanupBatchSize=5))["SESSION_POLICY"]
    other = variables(built(cleanupBatchSize=5, dryRun=True))["SESSION_POLICY"]
    assert one == other


def test_urls_come_from_secrets_and_redis_only_where_there_is_one() -> None:
    assert variables(built())["DATABASE_URL"] == {"secretKeyRef": {"name": "shop-db", "key": "url"}}
    assert "REDIS_URL" not in variables(built())
    with_redis = variables(built(stores=_stores(redis=True)))
    assert with_redis["REDIS_URL"] == {"secretKeyRef": {"name": "shop-redis", "key": "url"}}


def test_r2_alert_urls_and_the_hash_key_come_from_the_policy_s_secrets() -> None:
    plain = variables(built())
    assert not {"ALERT_OPERATIONS_URLS", "ALERT_SECURITY_URLS", "LOG_HASH_KEY"} & plain.keys()
    told = variables(
        built(
            alerts={
                "operations": {"urlsFrom": _source("ops", "urls")},
                "security": {"urlsFrom": _source("sec", "urls")},
            },
            logs={"hashKeyFrom": _source("hash", "key")},
        )
    )
    assert told["ALERT_OPERATIONS_URLS"] == _source("ops", "urls")
    assert told["ALERT_SECURITY_URLS"] == _source("sec", "urls")
    assert told["LOG_HASH_KEY"] == _source("hash", "key")


def test_r2_the_log_volume_is_mounted_where_the_run_is_told_to_write() -> None:
    without, with_claim = built(), built(logs={"volumeClaim": "session-logs"})
    assert (pod_spec(without)["volumes"], container(without)["volumeMounts"]) == ([], [])
    assert "LOG_DIRECTORY" not in variables(without)
    (volume,) = pod_spec(with_claim)["volumes"]
    (mount,) = container(with_claim)["volumeMounts"]
    assert volume == {"name": mount["name"], "persistentVolumeClaim": {"claimName": "session-logs"}}
    assert variables(with_claim)["LOG_DIRECTORY"] == mount["mountPath"]


def test_a_redis_only_policy_has_no_database_url() -> None:
    redis_only = built(stores={"redis": {"urlFrom": _source("shop-redis", "url")}})
    assert "DATABASE_URL" not in variables(redis_only)


def test_a_policy_too_large_for_an_environment_variable_is_refused_before_a_pod_fails_on_it() -> None:
    users = [f"{n:0>256}" for n in range(500)]
    with pytest.raises(InvalidPolicyError, match=r"shorten concurrency\.exemptUsers"):
        built(concurrency={"exemptUsers": users})


def test_bad_configuration_ends_the_job_and_a_drained_node_costs_no_attempt() -> None:
    bad, drained = built()["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert (bad["action"], bad["onExitCodes"]["values"]) == ("FailJob", [2])
    assert (drained["action"], drained["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")


def test_r6_several_workers_are_an_indexed_job_that_ends_with_its_leader() -> None:
    one, three = (built(job={"retries": 4, "parallelism": n})["spec"]["jobTemplate"]["spec"] for n in (1, 3))
    assert one == built(job={"retries": 4})["spec"]["jobTemplate"]["spec"] | {"template": one["template"]}
    assert (one["backoffLimit"], one.keys() & {"completionMode", "completions", "parallelism"}) == (4, set())
    assert (three["completionMode"], three["completions"], three["parallelism"]) == ("Indexed", 3, 3)
    # Each Pod has attempts of its own: those of a helper are not taken from the leader's.
    assert (three["backoffLimitPerIndex"], "backoffLimit" in three) == (4, False)
    assert three["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    assert three["podFailurePolicy"] == one["podFailurePolicy"]
    assert three["activeDeadlineSeconds"] == one["activeDeadlineSeconds"]


def test_the_job_s_deadline_leaves_room_for_every_attempt_and_every_pause() -> None:
    none, two = JobOptions(timeout_seconds=600, retries=0), JobOptions(timeout_seconds=600, retries=2)
    assert job_deadline_seconds(none) > 600 + 30
    assert job_deadline_seconds(two) == 3 * job_deadline_seconds(none) + 10 + 20


def test_evidence_is_kept_and_nothing_is_deleted_by_age() -> None:
    spec = built()["spec"]
    assert spec["successfulJobsHistoryLimit"] > 0
    assert spec["failedJobsHistoryLimit"] > 0
    assert "ttlSecondsAfterFinished" not in spec["jobTemplate"]["spec"]


def test_the_pod_has_no_api_access_and_no_rights() -> None:
    spec = pod_spec(built())
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container(built())["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_what_only_the_administrator_decides_comes_from_the_settings() -> None:
    settings = SETTINGS.model_copy(
        update={
            "job_image_pull_policy": "Always",
            "job_image_pull_secrets": ("registry",),
            "job_priority_class": "low",
        }
    )
    cron_job = build_cron_job(typed_policy(), POLICY_UID, settings)
    assert container(cron_job)["image"] == SETTINGS.job_image
    assert container(cron_job)["imagePullPolicy"] == "Always"
    assert pod_spec(cron_job)["imagePullSecrets"] == [{"name": "registry"}]
    assert pod_spec(cron_job)["priorityClassName"] == "low"


def test_a_long_name_is_cut_and_its_label_leads_back_to_it_on_every_child() -> None:
    cron_job = built("a" * 200)
    name = cron_job["metadata"]["name"]
    template = cron_job["spec"]["jobTemplate"]
    assert len(name) == 52
    for metadata in (cron_job["metadata"], template["metadata"], template["spec"]["template"]["metadata"]):
        assert metadata["labels"]["sessionpolicy.dev/policy"] == name
    assert cron_job["metadata"]["ownerReferences"][0]["name"] == "a" * 200


def _source(name: str, key: str) -> dict[str, Any]:
    return {"secretKeyRef": {"name": name, "key": key}}


def _stores(*, redis: bool) -> dict[str, Any]:
    stores: dict[str, Any] = {"database": {"urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "url"}}}}
    if redis:
        stores["redis"] = {"urlFrom": {"secretKeyRef": {"name": "shop-redis", "key": "url"}}}
    return stores
