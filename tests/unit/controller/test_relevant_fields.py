"""Events that lead nowhere new are told from those that do."""

from __future__ import annotations

from typing import Any

from controller.api.kube import CRON_JOBS, POLICIES
from controller.cache.owner_label import owner_label
from controller.cache.relevant_fields import cron_job_fields, job_fields, pod_fields, policy_fields
from tests.unit.controller.builders import job, pod, policy_resource, report, terminated, waiting


def test_the_controller_s_own_status_write_is_no_news() -> None:
    written = policy_resource() | {"status": {"consecutiveFailures": 3}}
    assert policy_fields(written) == policy_fields(policy_resource())


def test_a_new_generation_or_run_request_is_news() -> None:
    edited, asking = policy_resource(), policy_resource()
    edited["metadata"]["generation"] = 8
    asking["metadata"]["annotations"] = {"sessionpolicy.dev/run-requested-at": "now"}
    assert len({policy_fields(p) for p in (policy_resource(), edited, asking)}) == 3


def test_of_a_job_only_its_end_and_that_it_is_suspended_are_news() -> None:
    progress = job() | {"status": {"active": 1}}
    assert job_fields(progress) == job_fields(job())
    assert job_fields(job() | {"spec": {"suspend": True}}) != job_fields(job())
    assert job_fields(job(ended="Failed")) != job_fields(job())


def test_a_pod_that_cannot_start_and_one_that_ended_are_news() -> None:
    states = [waiting("ContainerCreating"), waiting("ErrImagePull"), terminated(0, report())]
    assert len({pod_fields(pod(state=state)) for state in states}) == 3
    assert pod_fields(pod(state=waiting("ErrImagePull"))) == pod_fields(pod(state=waiting("ImagePullBackOff")))


def test_a_pod_that_is_to_go_and_one_whose_node_went_silent_are_news() -> None:
    running: dict[str, Any] = {"running": {}}
    unready = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-03-01T10:50:00Z"}
    going = pod(state=running)
    going["metadata"]["deletionTimestamp"] = "2026-03-01T10:50:00Z"
    pods = [pod(state=running), going, pod(state=running, conditions=[unready])]
    assert len({pod_fields(found) for found in pods}) == 3


def test_of_a_cron_job_its_spec_its_owner_and_its_last_run_are_news() -> None:
    def cron_job(**changed: Any) -> dict[str, Any]:
        metadata = {"uid": "u", "generation": 1, "resourceVersion": "1", "labels": {"sessionpolicy.dev/policy": "shop"}}
        return {"metadata": metadata | changed, "status": {}}

    plain = cron_job()
    assert cron_job_fields(cron_job(resourceVersion="2")) == cron_job_fields(plain)
    changed = [
        cron_job(generation=2),
        cron_job(labels={}),
        cron_job(ownerReferences=[{"uid": "x"}]),
        plain | {"status": {"lastScheduleTime": "2026-03-01T10:50:00Z"}},
    ]
    assert len({cron_job_fields(c) for c in [plain, *changed]}) == 5


def test_a_policy_and_what_is_made_for_it_have_one_label_in_common() -> None:
    child = {"metadata": {"labels": {"sessionpolicy.dev/policy": "shop"}}}
    assert owner_label(CRON_JOBS, child) == owner_label(POLICIES, policy_resource()) == "shop"
    assert owner_label(CRON_JOBS, {"metadata": {"labels": None}}) == ""
    assert len(owner_label(POLICIES, policy_resource("n" * 100))) <= 52
