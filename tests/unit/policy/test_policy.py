"""The policy: names, defaults, rules, errors, and the schema that is generated from it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from policy.crd import DEFINITIONS, Definition, crd
from policy.manifest import InvalidPolicyError, load_policy, parse_policy
from policy.names import cron_job_name
from policy.profiles import PROFILES, Profile
from policy.reference import reference
from tests.support.runs import manifest, policy

ROOT = Path(__file__).parents[3]
SECRET = "hunter2-canary"

names = st.from_regex(r"\A[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")


# --- names -----------------------------------------------------------------------------------------------------------


@given(name=names)
def test_r1_1_a_cron_jobs_name_is_valid_short_and_stable(name: str) -> None:
    made = cron_job_name(name)
    assert len(made) <= 52
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", made)
    assert made == cron_job_name(name)
    if len(name) <= 52:
        assert made == name


@given(head=st.from_regex(r"\A[a-z]{50,60}\Z"), one=names, other=names)
def test_r1_1_long_names_that_begin_alike_stay_apart(head: str, one: str, other: str) -> None:
    assume(one != other)
    assert cron_job_name(head + one) != cron_job_name(head + other)


@given(st.text("ab-.0", min_size=51, max_size=200).map(lambda text: f"a{text}z"))
def test_no_policy_can_be_given_the_name_that_another_one_s_is_cut_to(name: str) -> None:
    made = cron_job_name(name)
    assert made == name or cron_job_name(made) != made


# --- defaults and rules ----------------------------------------------------------------------------------------------


def test_r2_the_defaults_are_the_required_ones() -> None:
    document = manifest()
    document["spec"] = {"stores": document["spec"]["stores"]}
    spec = parse_policy(document).spec
    assert (spec.schedule, spec.time_zone, spec.suspend, spec.dry_run) == ("50 * * * *", "Etc/UTC", False, False)
    assert (spec.cleanup_batch_size, spec.max_concurrent_sessions) == (1000, 10)
    assert (spec.job.timeout_seconds, spec.job.retries) == (600, 2)


OWN = {"name": "t", "columns": {"id": {"name": "id"}, "expiresAt": {"name": "until"}}}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"sessionTimeoutSeconds": 3600, "absoluteTimeoutSeconds": 60}, ["absoluteTimeoutSeconds"]),
        ({"absoluteTimeoutSeconds": 3600, "table": OWN}, ["columns.createdAt"]),
        ({"sessionTimeoutSeconds": 3600, "table": OWN}, ["columns.lastAccessedAt"]),
        ({"table": {"columns": OWN["columns"]}}, ["table.name"]),
        ({"table": {"name": "t", "columns": {"id": {"name": "id"}}}}, ["createdAt", "nothing can ever expire"]),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(spec: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InvalidPolicyError) as refused:
        policy(**spec)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(("on_exceed", "needs"), [
    ("EvictLeastRecentlyUsed", "lastAccessedAt"), ("EvictOldest", "createdAt"), ("EvictNewest", "createdAt"),
    ("Report", None),
])  # fmt: skip
def test_r2_5_evicting_needs_the_column_that_decides(on_exceed: str, needs: str | None) -> None:
    columns = {**OWN["columns"], "userId": {"name": "u"}}  # type: ignore[dict-item]
    spec = {"concurrency": {"onExceed": on_exceed}, "table": {"name": "t", "columns": columns}}
    if needs is None:
        policy(**spec)
        return
    with pytest.raises(InvalidPolicyError, match=f"columns.{needs}"):
        policy(**spec)
    policy(**spec, maxConcurrentSessions=0)
    columns[needs] = {"name": "x"}
    policy(**spec)


@pytest.mark.parametrize("profile", list(Profile))
def test_r4_2_every_profile_is_a_valid_policy(profile: Profile) -> None:
    lifetime = PROFILES[profile]
    assert lifetime.absolute is not None
    policy(profile=profile.value)
    policy(sessionTimeoutSeconds=lifetime.idle, absoluteTimeoutSeconds=lifetime.absolute)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"schedule": [SECRET]}, "spec.schedule"),
        ({"profile": SECRET}, "spec.profile"),
        ({"cleanupBatchSize": SECRET}, "spec.cleanupBatchSize"),
        ({"cleanupBatchSize": 50_001}, "spec.cleanupBatchSize"),
        ({"cleanupBatchSize": True}, "spec.cleanupBatchSize"),
        ({"cleanupBatchSize": 1.5}, "spec.cleanupBatchSize"),
        ({"sessionTimeoutSeconds": 59}, "spec.sessionTimeoutSeconds"),
        ({"dryRun": "yes"}, "spec.dryRun"),
        ({"safety": {"maxDeletePercent": 101}}, "spec.safety.maxDeletePercent"),
        ({"safety": {"maxdeletepercent": 1}}, "spec.safety.maxdeletepercent"),
        ({"concurrency": {"exemptUsers": ["a", ""]}}, "spec.concurrency.exemptUsers[1]"),
        ({"table": {"name": SECRET, "columns": {"id": {"name": ""}}}}, "spec.stores.database.table.columns.id.name"),
        ({"job": {"tolerations": [{"effect": SECRET}]}}, "spec.job.tolerations[0].effect"),
        ({"session_timeout_seconds": 60}, "spec.session_timeout_seconds"),
    ],
)  # fmt: skip
def test_an_error_names_the_field_and_not_the_value(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidPolicyError) as refused:
        policy(**spec)
    assert any(problem.startswith(f"{field}: ") for problem in refused.value.problems), refused.value.problems
    assert SECRET not in str(refused.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidPolicyError) as refused:
        policy(cleanupBatchSize=0, maxConcurrentSessions=-1, unknown=1)
    assert len(refused.value.problems) == 3


@given(text=st.text())
def test_no_text_is_anything_but_a_policy_or_a_clear_error(text: str) -> None:
    for document in (text, "kind: SessionPolicy\nspec: " + text):
        try:
            load_policy(document)
        except InvalidPolicyError as error:
            assert error.problems


@pytest.mark.parametrize("indent", [None, 2])
def test_the_same_policy_in_json_and_in_yaml_is_the_same(indent: int | None) -> None:
    document = manifest(
        schedule="0 0 * * *", sessionTimeoutSeconds=60, concurrency={"exemptUsers": ["2026-11-20", "é"]}
    )
    assert load_policy(json.dumps(document, indent=indent)) == load_policy(yaml.safe_dump(document))


def test_json_that_is_nested_too_deeply_is_refused_clearly() -> None:
    with pytest.raises(InvalidPolicyError, match="nesting too deep"):
        load_policy("[" * 100_000)


nodes = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.dates()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=10,
)


@given(spec=nodes, metadata=nodes)
def test_no_manifest_is_anything_but_a_policy_or_a_clear_error(spec: Any, metadata: Any) -> None:
    with pytest.raises(InvalidPolicyError):
        parse_policy({**manifest(), "spec": spec, "metadata": metadata})


def test_status_and_the_servers_metadata_are_ignored() -> None:
    document = manifest() | {"status": {"anything": [1]}}
    document["metadata"] |= {"uid": "u", "managedFields": [], "generation": 7}
    assert parse_policy(document).metadata.generation == 7


# --- the generated schema --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("directory", ["crds", "charts/session-policy-operator/files/crds"])
@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda d: d.kind)
def test_the_committed_crd_is_the_generated_one(directory: str, definition: Definition) -> None:
    committed = (ROOT / directory / f"{definition.plural}.yaml").read_text()
    assert yaml.safe_load(committed) == crd(definition), "run `make crds`"


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda d: d.kind)
def test_the_committed_reference_is_the_generated_one(definition: Definition) -> None:
    committed = (ROOT / "docs" / "reference" / f"{definition.singular}.md").read_text()
    assert committed == reference(definition), "run `make crds`"


def schema(definition: Definition) -> dict[str, Any]:
    found: dict[str, Any] = crd(definition)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def fields(node: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = [(path, node)] if path else []
    for name, child in node.get("properties", {}).items():
        found += fields(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(node.get(name), dict):
            found += [f for f in fields(node[name], f"{path}[]") if f[0] != f"{path}[]"]
    return found


@pytest.mark.parametrize("part", ["spec", "status"])
@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda d: d.kind)
def test_every_field_is_described(definition: Definition, part: str) -> None:
    described = fields(schema(definition)["properties"][part], part)
    bare = [path for path, node in described if not node.get("description")]
    assert bare == []


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda d: d.kind)
def test_the_schema_is_structural(definition: Definition) -> None:
    def check(node: Any) -> None:
        if isinstance(node, dict):
            assert not node.keys() & {"$ref", "$defs", "title", "const", "oneOf"}
            if "anyOf" in node:
                assert node["x-kubernetes-int-or-string"] is True
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
            check(child)

    check(schema(definition))
