"""Runs asked for by annotation."""

from __future__ import annotations

from typing import Any

import pytest

from controller.manifests.cronjob import build_cron_job
from controller.runs.job_state import trigger
from controller.runs.run_request import build_job, requested_run
from policy.status import SessionPolicyStatus, Trigger
from tests.unit.controller.builders import POLICY_UID, SETTINGS, policy_resource, typed_policy


def asking(token: str) -> dict[str, Any]:
    resource = policy_resource()
    resource["metadata"]["annotations"] = {"sessionpolicy.dev/run-requested-at": token}
    return resource


def cron_job(name: str = "shop") -> dict[str, Any]:
    manifest = build_cron_job(typed_policy(name), POLICY_UID, SETTINGS)
    manifest["metadata"]["uid"] = "uid-of-cron-job"
    return manifest


def test_no_annotation_or_an_empty_one_asks_for_nothing() -> None:
    assert requested_run(policy_resource()) is None
    assert requested_run(asking("")) is None


def test_an_ordinary_token_is_echoed_as_it_is() -> None:
    assert requested_run(asking("2026-03-01T10:00:00Z")) == "2026-03-01T10:00:00Z"


@pytest.mark.parametrize("token", ["x" * 257, "x" * 100_000, "line\nbreak", "\x00", "é\u202e", " padded "])
def test_a_hostile_token_fits_the_status_and_stays_apart_from_others(token: str) -> None:
    echoed = requested_run(asking(token))
    assert echoed is not None
    assert echoed.isprintable()
    assert SessionPolicyStatus(last_handled_run_request=echoed)
    assert echoed != requested_run(asking(token + "y"))


def test_the_job_s_name_is_the_same_for_the_same_request_and_differs_for_any_other() -> None:
    def name(token: str, uid: str = POLICY_UID) -> str:
        return str(build_job(cron_job(), uid, token)["metadata"]["name"])

    assert name("a") == name("a")
    assert len({name("a"), name("b"), name("a", "another-policy")}) == 3


def test_the_job_s_name_fits_a_host_name_whatever_the_policy_is_called() -> None:
    assert len(build_job(cron_job("p" * 253), POLICY_UID, "now")["metadata"]["name"]) <= 63


def test_the_job_belongs_to_the_cron_job_and_is_told_apart() -> None:
    job = build_job(cron_job(), POLICY_UID, "now")
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("CronJob", "uid-of-cron-job", True)
    assert job["metadata"]["labels"]["sessionpolicy.dev/policy"] == "shop"
    assert trigger(job) is Trigger.REQUEST
    assert job["metadata"]["annotations"]["cronjob.kubernetes.io/instantiate"] == "manual"
