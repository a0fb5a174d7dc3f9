"""The Job made from a SessionRevocation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.manifests.cronjob import build_cron_job, job_deadline_seconds
from controller.revocation.revocation_job import build_revocation_job
from policy.manifest import parse_policy, parse_revocation, parse_target
from policy.names import API_VERSION
from tests.unit.controller.builders import POLICY_UID, SETTINGS, typed_policy

UID = "0d9ae7a6-0000-4000-8000-000000000009"
USER = "canary-user"


def built(policy: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    resource = {
        "apiVersion": API_VERSION,
        "kind": "SessionRevocation",
        "metadata": {"name": "logout-canary-user", "namespace": "web"},
        "spec": {"policyName": "shop", "reason": "canary-reason"} | (spec or {"user": USER}),
    }
    return build_revocation_job(parse_revocation(resource), UID, typed_policy(**(policy or {})), POLICY_UID, SETTINGS)


def container(job: dict[str, Any]) -> dict[str, Any]:
    (only,) = job["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def variables(job: dict[str, Any]) -> dict[str, Any]:
    return {v["name"]: v.get("value", v.get("valueFrom")) for v in container(job)["env"]}


def kubelet_reads(value: str) -> str:
    """What the kubelet makes of a variable's value, where all variables are known."""
    result, rest = "", value
    while rest:
        if rest.startswith("$$"):
            result, rest = result + "$", rest[2:]
        elif rest.startswith("$(") and ")" in rest:
            result, rest = result + "EXPANDED", rest[rest.index(")") + 1 :]
        else:
            result, rest = result + rest[0], rest[1:]
    return result


@given(user=st.text(min_size=1, max_size=256).filter(lambda text: text.isprintable()))
def test_the_container_is_told_exactly_this_user(user: str) -> None:
    assert parse_target(kubelet_reads(variables(built(user=user))["SESSION_POLICY_REVOCATION"])).user == user


@pytest.mark.parametrize("user", ["$(DATABASE_URL)", "$$", "a$$(REDIS_URL)", "$"])
def test_a_user_cannot_name_another_variable(user: str) -> None:
    assert parse_target(kubelet_reads(variables(built(user=user))["SESSION_POLICY_REVOCATION"])).user == user


def test_the_container_is_told_the_target_and_the_policy_and_nothing_else() -> None:
    told = variables(built(user=USER))
    assert json.loads(told["SESSION_POLICY_REVOCATION"]) == {"user": USER}
    assert parse_policy(json.loads(told["SESSION_POLICY"])) == typed_policy()
    by_hash = variables(built(sessionHash="s:" + "0" * 20))
    assert json.loads(by_hash["SESSION_POLICY_REVOCATION"]) == {"sessionHash": "s:" + "0" * 20}
    assert "canary-reason" not in json.dumps(built())


def test_the_user_is_in_one_variable_and_nowhere_else() -> None:
    job = built()
    container(job)["env"] = [v for v in container(job)["env"] if v["name"] != "SESSION_POLICY_REVOCATION"]
    # The owner is named by the resource's own name, which is its author's choice.
    assert [owner.pop("name") for owner in job["metadata"]["ownerReferences"]] == ["logout-canary-user"]
    assert "canary" not in json.dumps(job)


def test_it_is_the_policy_s_pod_with_other_arguments() -> None:
    policy: dict[str, Any] = {
        "job": {"nodeSelector": {"disk": "ssd"}, "timeoutSeconds": 60},
        "logs": {"volumeClaim": "logs"},
    }
    pod = built(policy)["spec"]["template"]["spec"]
    run = build_cron_job(typed_policy(**policy), POLICY_UID, SETTINGS)["spec"]["jobTemplate"]["spec"]["template"][
        "spec"
    ]
    assert pod["containers"][0]["args"] == ["revoke"]
    assert run["containers"][0]["args"] == ["run"]
    for spec in (pod, run):
        del spec["containers"][0]["args"], spec["containers"][0]["env"]
    assert pod == run
    assert pod["automountServiceAccountToken"] is False


def test_a_secret_for_alerts_cannot_keep_it_from_starting() -> None:
    source = {"secretKeyRef": {"name": "channels", "key": "urls"}}
    hashed = {"secretKeyRef": {"name": "hash", "key": "key"}}
    policy = {"alerts": {"operations": {"urlsFrom": source}, "security": {"urlsFrom": source}}}
    told = variables(built({**policy, "logs": {"hashKeyFrom": hashed}}))
    assert source not in told.values()
    assert told["LOG_HASH_KEY"] == hashed
    assert "DATABASE_URL" in told


def test_it_is_made_once_and_does_not_start_by_itself() -> None:
    job = built()
    assert job["metadata"]["name"] == f"revoke-{UID}"
    assert job["spec"]["suspend"] is True
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (
        *("SessionRevocation", UID, True, False),
    )
    for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
        assert metadata["labels"]["sessionpolicy.dev/revocation"] == UID
        assert metadata["labels"]["sessionpolicy.dev/policy"] == "shop"
    assert "ttlSecondsAfterFinished" not in job["spec"]  # the resource takes it away, with the evidence read


@pytest.mark.parametrize(("retries", "expected"), [(0, 3), (3, 3), (7, 7)])
def test_it_is_tried_again_even_where_runs_are_not(retries: int, expected: int) -> None:
    job = built({"job": {"retries": retries}})
    assert job["spec"]["backoffLimit"] == expected
    options = typed_policy(job={"retries": expected}).spec.job
    assert job["spec"]["activeDeadlineSeconds"] == job_deadline_seconds(options)
    assert job["spec"]["podFailurePolicy"]["rules"][0]["action"] == "FailJob"


def test_a_suspended_policy_and_a_dry_run_make_no_difference_to_the_job() -> None:
    assert json.loads(variables(built({"suspend": True, "dryRun": True}))["SESSION_POLICY"])["spec"]["dryRun"] is True
