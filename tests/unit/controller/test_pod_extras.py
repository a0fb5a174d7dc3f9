"""What the administrator adds to every cleanup Pod; it never takes the place of what the operator sets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.manifests.cronjob import build_cron_job
from controller.settings.controller_settings import Settings
from controller.settings.environment import InvalidSettingsError
from controller.settings.pod_extras import PodExtras, is_own_variable
from tests.unit.controller.builders import POLICY_UID, SETTINGS, typed_policy

IMAGE = {"SESSION_POLICY_JOB_IMAGE": "job:1"}
SOURCE = {"urlsFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}
EVERYTHING: dict[str, Any] = {
    "stores": {name: {"urlFrom": SOURCE["urlsFrom"]} for name in ("database", "redis")},
    "alerts": {"operations": SOURCE, "security": SOURCE},
    "logs": {"volumeClaim": "logs", "hashKeyFrom": SOURCE["urlsFrom"]},
}


def template(extras: PodExtras, **spec: Any) -> dict[str, Any]:
    settings = SETTINGS.model_copy(update={"pod_extras": extras})
    cron_job = build_cron_job(typed_policy(**spec), POLICY_UID, settings)
    found: dict[str, Any] = cron_job["spec"]["jobTemplate"]["spec"]["template"]
    return found


def read(**environment: str) -> PodExtras:
    return Settings.from_environment(IMAGE | environment).pod_extras


def problems_of(**environment: str) -> list[str]:
    with pytest.raises(InvalidSettingsError) as raised:
        read(**environment)
    return raised.value.problems


def test_they_are_read_and_reach_the_pod() -> None:
    extras = read(
        SESSION_POLICY_JOB_POD_LABELS='{"team": "identity", "example.com/cost-centre": "7", "empty": ""}',
        SESSION_POLICY_JOB_POD_ANNOTATIONS='{"sidecar.istio.io/inject": "false"}',
        SESSION_POLICY_JOB_ENV='{"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".svc"}',
        SESSION_POLICY_JOB_SERVICE_ACCOUNT="session-cleanup",
    )
    made, plain = template(extras), template(PodExtras())
    assert made["metadata"]["labels"] == plain["metadata"]["labels"] | {
        "team": "identity",
        "example.com/cost-centre": "7",
        "empty": "",
    }
    assert made["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
    assert made["spec"]["serviceAccountName"] == "session-cleanup"
    env, before = made["spec"]["containers"][0]["env"], plain["spec"]["containers"][0]["env"]
    assert env[: len(before)] == before
    assert env[len(before) :] == [
        {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
        {"name": "NO_PROXY", "value": ".svc"},
    ]


def test_nothing_is_added_unless_it_is_configured() -> None:
    assert read() == read(SESSION_POLICY_JOB_POD_LABELS="", SESSION_POLICY_JOB_ENV=" ") == PodExtras()
    assert template(PodExtras())["spec"]["serviceAccountName"] == ""


def test_labels_are_the_pod_s_alone() -> None:
    settings = SETTINGS.model_copy(update={"pod_extras": PodExtras(pod_labels={"team": "a"})})
    cron_job = build_cron_job(typed_policy(), POLICY_UID, settings)
    assert "team" not in cron_job["metadata"]["labels"]
    assert "team" not in cron_job["spec"]["jobTemplate"]["metadata"]["labels"]


def test_whatever_the_operator_sets_itself_is_refused() -> None:
    own = template(PodExtras(), **EVERYTHING)
    labels = [*own["metadata"]["labels"], "sessionpolicy.dev/other", "batch.kubernetes.io/job-name", "job-name"]
    variables = [variable["name"] for variable in own["spec"]["containers"][0]["env"]]
    assert len(variables) == 8
    for name, keys in (
        ("SESSION_POLICY_JOB_POD_LABELS", labels),
        ("SESSION_POLICY_JOB_POD_ANNOTATIONS", ["sessionpolicy.dev/run-requested-at"]),
        ("SESSION_POLICY_JOB_ENV", variables),
    ):
        for key in keys:
            (problem,) = problems_of(**{name: json.dumps({key: "x"})})
            assert problem == f"{name}: {key!r} belongs to the operator"
    assert not is_own_variable("HTTPS_PROXY")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SESSION_POLICY_JOB_POD_LABELS", '{"-a": "x"}'),
        ("SESSION_POLICY_JOB_POD_LABELS", '{"a/b/c": "x"}'),
        ("SESSION_POLICY_JOB_POD_LABELS", '{"Example.com/a": "x"}'),
        ("SESSION_POLICY_JOB_POD_LABELS", '{"": "x"}'),
        ("SESSION_POLICY_JOB_POD_LABELS", '{"a": "not a value"}'),
        ("SESSION_POLICY_JOB_POD_LABELS", json.dumps({"a": "x" * 64})),
        ("SESSION_POLICY_JOB_POD_LABELS", json.dumps({"x" * 64: "a"})),
        ("SESSION_POLICY_JOB_POD_LABELS", '{"a": 1}'),
        ("SESSION_POLICY_JOB_POD_LABELS", "a=b"),
        ("SESSION_POLICY_JOB_POD_ANNOTATIONS", '["a"]'),
        ("SESSION_POLICY_JOB_POD_ANNOTATIONS", '{"a b": "x"}'),
        ("SESSION_POLICY_JOB_ENV", '{"1A": "x"}'),
        ("SESSION_POLICY_JOB_ENV", '{"A=B": "x"}'),
        ("SESSION_POLICY_JOB_ENV", '{"A": null}'),
        ("SESSION_POLICY_JOB_SERVICE_ACCOUNT", "Not_A_Name"),
        ("SESSION_POLICY_JOB_SERVICE_ACCOUNT", "a..b"),
    ],
)
def test_what_the_api_server_would_refuse_for_every_policy_is_refused_at_the_start(name: str, value: str) -> None:
    (problem,) = problems_of(**{name: value})
    assert problem.startswith(name)


def test_a_value_that_cannot_be_read_is_not_repeated() -> None:
    assert "canary" not in str(problems_of(SESSION_POLICY_JOB_ENV="TOKEN=canary"))
