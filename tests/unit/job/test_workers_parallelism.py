"""Who takes part in a run, and whether there is anything to share."""

from __future__ import annotations

from typing import Any

import pytest

from job.workers.parallelism import fingerprint, why_not_parallel, worker_index
from policy.manifest import InvalidPolicyError
from policy.names import JOB_INDEX_ENV, JOB_UID_ENV
from stores.model.stored_settings import Scope, Setting
from tests.support.runs import SECRET, policy

IN_A_JOB = {JOB_INDEX_ENV: "0", JOB_UID_ENV: "uid"}
SHARED: dict[str, Any] = {"job": {"parallelism": 2}}


@pytest.mark.parametrize(
    ("text", "index"), [(None, None), ("", None), ("0", 0), ("15", 15), ("-1", None), ("one", None), ("²", None)]
)
def test_a_worker_s_index_is_what_kubernetes_says(text: str | None, index: int | None) -> None:
    assert worker_index({} if text is None else {JOB_INDEX_ENV: text}) == index


def test_a_policy_with_several_workers_is_shared_in_an_indexed_job() -> None:
    assert why_not_parallel(policy(**SHARED).spec, IN_A_JOB, dry_run=False) is None


@pytest.mark.parametrize(
    ("spec", "environment", "word"),
    [
        ({}, IN_A_JOB, "job.parallelism is 1"),
        (SHARED | {"dryRun": True}, IN_A_JOB, "dry run"),
        (SHARED | {"safety": {"maxDeletions": 10}}, IN_A_JOB, "safety.maxDeletions"),
        (SHARED | {"stores": {"redis": {"urlFrom": SECRET}}}, IN_A_JOB, "no stores.database"),
        (SHARED, {JOB_UID_ENV: "uid"}, JOB_INDEX_ENV),
        (SHARED, {JOB_INDEX_ENV: "0"}, JOB_UID_ENV),
    ],
)
def test_what_cannot_be_shared_says_why(spec: dict[str, Any], environment: dict[str, str], word: str) -> None:
    assert word in (why_not_parallel(policy(**spec).spec, environment, dry_run=False) or "")


def test_a_dry_run_of_the_command_line_is_not_shared() -> None:
    assert why_not_parallel(policy(**SHARED).spec, IN_A_JOB, dry_run=True) is not None


def test_leader_and_helpers_come_to_the_same_answer() -> None:
    for spec in (policy(**SHARED).spec, policy().spec):
        answers = {why_not_parallel(spec, IN_A_JOB | {JOB_INDEX_ENV: str(n)}, dry_run=False) for n in range(3)}
        assert len(answers) == 1


def test_workers_obey_the_same_if_policy_and_settings_are_the_same_in_whatever_order() -> None:
    one, other = Setting(Scope.GLOBAL, idle=600), Setting(Scope.USER, limit=3)
    assert fingerprint(policy().spec, [one, other]) == fingerprint(policy().spec, [other, one])
    others = [
        fingerprint(policy().spec, [one]),
        fingerprint(policy().spec, [one, Setting(Scope.USER, limit=4)]),
        fingerprint(policy(sessionTimeoutSeconds=900).spec, [one, other]),
    ]
    assert len({fingerprint(policy().spec, [one, other]), *others}) == 4


@pytest.mark.parametrize("number", [0, 17, 1.5, "2"])
def test_there_are_1_to_16_workers(number: Any) -> None:
    with pytest.raises(InvalidPolicyError, match=r"spec\.job\.parallelism"):
        policy(job={"parallelism": number})
