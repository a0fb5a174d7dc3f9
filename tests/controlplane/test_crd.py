"""The CustomResourceDefinition on a real API server, and the rules that it shares with the models."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes import client, config

from policy.crd import DEFINITIONS, Definition, crd
from policy.manifest import InvalidPolicyError, parse_policy
from policy.names import API_VERSION, GROUP, KIND, PLURAL, VERSION
from tests.support.kube import Kubectl

SECRET = {"secretKeyRef": {"name": "s", "key": "k"}}


@pytest.fixture(scope="module")
def api(cluster: Kubectl) -> Iterator[client.CustomObjectsApi]:
    with config.new_client_from_config(str(cluster.kubeconfig)) as connection:
        yield client.CustomObjectsApi(connection)


def resource(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": "judged", "namespace": "default"},
        "spec": spec,
    }


def server_accepts(api: client.CustomObjectsApi, spec: dict[str, Any]) -> bool:
    try:
        api.create_namespaced_custom_object(
            *(GROUP, VERSION, "default", PLURAL, resource(spec)), dry_run="All", field_validation="Strict"
        )
    except client.ApiException as refused:
        assert refused.status in (400, 422), refused
        return False
    return True


def model_accepts(spec: dict[str, Any]) -> bool:
    try:
        parse_policy(resource(spec))
    except InvalidPolicyError:
        return False
    return True


def spec_with(table: dict[str, Any] | None = None, redis: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    database: dict[str, Any] = {"urlFrom": SECRET} | ({"table": table} if table else {})
    stores: dict[str, Any] = {"database": database} | (
        {"redis": {"urlFrom": SECRET} | redis} if redis is not None else {}
    )
    return {"stores": stores} | spec


def table(*times: str, user: bool = True, **more: Any) -> dict[str, Any]:
    columns: dict[str, Any] = {"id": {"name": "id"}} | {time: {"name": time} for time in times}
    return {"name": "t", "columns": columns | ({"userId": {"name": "u"}} if user else {})} | more


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda d: d.kind)
def test_the_server_has_stored_the_schema_as_it_was_generated(cluster: Kubectl, definition: Definition) -> None:
    stored = cluster.get("crd", f"{definition.plural}.{GROUP}")["spec"]["versions"][0]
    generated = crd(definition)["spec"]["versions"][0]
    assert stored["schema"] == generated["schema"]
    assert stored["additionalPrinterColumns"] == generated["additionalPrinterColumns"]


CASES: dict[str, tuple[bool, dict[str, Any]]] = {
    "least": (True, spec_with()),
    "no stores": (False, {}),
    "unknown field": (False, spec_with(image="evil")),
    "timeouts in order": (True, spec_with(sessionTimeoutSeconds=60, absoluteTimeoutSeconds=60)),
    "absolute below idle": (False, spec_with(sessionTimeoutSeconds=61, absoluteTimeoutSeconds=60)),
    "absolute without column": (False, spec_with(table("lastAccessedAt"), absoluteTimeoutSeconds=9000)),
    "idle without column": (False, spec_with(table("createdAt"), sessionTimeoutSeconds=60, maxConcurrentSessions=0)),
    "no time at all": (False, spec_with(table(user=False))),
    "columns without a table": (False, spec_with({"columns": table("expiresAt")["columns"]})),
    "least recently used without column": (False, spec_with(table("createdAt"))),
    "oldest without column": (False, spec_with(table("lastAccessedAt"), concurrency={"onExceed": "EvictOldest"})),
    "no user, no limit": (True, spec_with(table("expiresAt", user=False))),
    "reported only": (True, spec_with(table("expiresAt"), concurrency={"onExceed": "Report"})),
    "template without id": (False, spec_with(redis={"keys": {"session": "sess:x"}})),
    "template with two ids": (False, spec_with(redis={"keys": {"session": "{id}{id}"}})),
    "template of users": (True, spec_with(redis={"keys": {"userIndex": "u:{user}"}})),
    "text for a number": (False, spec_with(cleanupBatchSize="5")),
    "fraction": (False, spec_with(cleanupBatchSize=1.5)),
    "null": (False, spec_with(stores=None)),
}


@pytest.mark.parametrize(("expected", "spec"), CASES.values(), ids=CASES.keys())
def test_server_and_models_judge_alike(api: client.CustomObjectsApi, expected: bool, spec: dict[str, Any]) -> None:
    assert (server_accepts(api, spec), model_accepts(spec)) == (expected, expected)


seconds = st.sampled_from([0, 29, 30, 59, 60, 61, 600, 1800, 86400, 86401, 10**9, 10**12, -1])
times = st.lists(st.sampled_from(["createdAt", "lastAccessedAt", "expiresAt"]), unique=True)
optional_table = st.none() | st.builds(lambda drawn, user: table(*drawn, user=user), times, st.booleans())
template = st.sampled_from(["sess:{id}", "{id}", "{id}:{id}", "{user}", "abc", "a{id}", "x" * 300 + "{id}", "é{id}ü"])
redis = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "keys": st.fixed_dictionaries({}, optional={"session": template, "userIndex": template, "accessLog": template})
    },
)
specs = st.builds(
    lambda drawn_table, drawn_redis, rest: spec_with(drawn_table, drawn_redis, **rest),
    optional_table,
    redis,
    st.fixed_dictionaries(
        {},
        optional={
            "sessionTimeoutSeconds": seconds,
            "absoluteTimeoutSeconds": seconds,
            "maxConcurrentSessions": st.sampled_from([0, 1, 10, 10**6, 10**6 + 1]),
            "concurrency": st.fixed_dictionaries(
                {},
                optional={
                    "onExceed": st.sampled_from(
                        ["EvictLeastRecentlyUsed", "EvictOldest", "EvictNewest", "Report", "Other"]
                    ),
                    "exemptUsers": st.lists(st.sampled_from(["", "a", "é" * 256, "b" * 257]), max_size=2),
                },
            ),
            "profile": st.sampled_from(["Finance", "finance", "Games"]),
            "schedule": st.sampled_from(["* * * * *", "", "nonsense", "é" * 128, "x" * 129]),
            "dryRun": st.sampled_from([True, False, "true", 1]),
            "job": st.fixed_dictionaries({}, optional={"timeoutSeconds": seconds, "retries": st.integers(-1, 11)}),
        },
    ),
)


@pytest.mark.exhaustive
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(spec=specs)
def test_server_and_models_judge_any_policy_alike(api: client.CustomObjectsApi, spec: dict[str, Any]) -> None:
    assert server_accepts(api, spec) == model_accepts(spec)


def test_the_server_fills_in_the_models_defaults(api: client.CustomObjectsApi) -> None:
    for spec in (spec_with(), spec_with(redis={}), spec_with(concurrency={}, job={}, safety={})):
        stored: Any = api.create_namespaced_custom_object(
            *(GROUP, VERSION, "default", PLURAL, resource(copy.deepcopy(spec))), dry_run="All"
        )
        assert parse_policy(stored).spec == parse_policy(resource(spec)).spec
