"""Runs that are due. API server and CronJob are real; the clock is the test's, so that none waits for an hour."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio import client, config

from controller.api.kube import KINDS, Kube
from controller.cache.object_cache import ObjectCache
from controller.reconcile.policy_reconciler import PolicyReconciler
from controller.runs.missed_schedules import last_schedule_time
from controller.settings.controller_settings import Settings
from tests.controlplane.conftest import StartController
from tests.controlplane.kubelet import Kubelet, report
from tests.controlplane.policies import Policies, Policy
from tests.support.kube import eventually

MINUTE = timedelta(minutes=1)


class Controller:
    """Reconciles when it is told to, by a clock that is moved by hand."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self.now = datetime.now(UTC).replace(microsecond=0)

    def look(self, policy: Policy) -> float | None:
        """One reconciliation; returns after how many seconds it wants the next."""
        return asyncio.run(self._look(policy))

    async def _look(self, policy: Policy) -> float | None:
        configuration = client.Configuration()
        configuration.disable_strict_ssl_verification = True
        await config.load_kube_config(str(self._kubeconfig), client_configuration=configuration)
        kube = Kube(client.ApiClient(configuration))
        try:
            cache = ObjectCache()
            for kind in KINDS:
                async for page in kube.list_pages(kind, policy.namespace):
                    for body in page.items:
                        cache.upsert(kind, body)
            reconciler = PolicyReconciler(
                kube, cache, Settings(job_image="registry.example/job:test"), lambda: self.now
            )
            return await reconciler.reconcile(policy.namespace, policy.name)
        finally:
            await kube.close()


@pytest.fixture
def by_hand(operator_kubeconfig: Path) -> Controller:
    return Controller(operator_kubeconfig)


def hourly(now: datetime) -> tuple[str, datetime]:
    """A schedule that is next due in half an hour, long after the test is over, and when that is."""
    due = (now + 30 * MINUTE).replace(second=0)
    return f"{due.minute} * * * *", due


def text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def say_started(policy: Policy, when: datetime) -> None:
    """As kube-controller-manager does when it starts a run."""
    policy.api.patch_status("cronjobs", policy.namespace, policy.cron_job_name, {"lastScheduleTime": text(when)})


def test_r1_2_a_run_that_is_not_started_is_missed_and_told_until_one_is(own: Policies, by_hand: Controller) -> None:
    schedule, due = hourly(by_hand.now)
    policy = own.named()
    policy.apply(schedule=schedule)
    wait = by_hand.look(policy)
    status = policy.status()
    assert (status["missedSchedules"], status["nextScheduleTime"]) == (0, text(due))

    looks = 0
    while status["missedSchedules"] == 0:
        assert wait is not None
        by_hand.now += timedelta(seconds=wait)
        wait = by_hand.look(policy)
        status, looks = policy.status(), looks + 1
        assert status["nextScheduleTime"] > text(by_hand.now)
        assert looks <= 2, "it looks after the run was due, and when it is too late to start it"
    assert by_hand.now - due < timedelta(minutes=6)
    stalled = policy.condition("Stalled")
    assert (stalled["reason"], status["lastMissedScheduleTime"]) == ("MissedSchedule", text(due))
    assert f"kubectl describe cronjob {policy.cron_job_name}" in stalled["message"]
    assert policy.condition("Ready")["status"] == "True"
    assert [reason for reason, _ in policy.events()].count("MissedSchedule") == 1

    by_hand.look(policy)
    assert policy.status() == status, "what was seen is not counted again"

    by_hand.now = due + 64 * MINUTE
    say_started(policy, due + 60 * MINUTE)
    by_hand.look(policy)
    assert policy.status()["missedSchedules"] == 0
    assert policy.status()["totals"]["missedSchedules"] == 1
    assert policy.condition("Stalled") == {}


def test_a_cron_job_changed_in_the_meantime_is_looked_at_before_anything_is_claimed(
    own: Policies, by_hand: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule, due = hourly(by_hand.now)
    policy = own.named()
    policy.apply(schedule=schedule)
    by_hand.look(policy)
    by_hand.now = due + 10 * MINUTE
    read = Kube.get_cron_job
    seen: list[Any] = []

    async def started_just_after_the_first_look(kube: Kube, namespace: str, name: str) -> Any:
        say_started(policy, due)
        seen.append(name)
        return await read(kube, namespace, name)

    monkeypatch.setattr(Kube, "get_cron_job", started_just_after_the_first_look)
    by_hand.look(policy)
    assert len(seen) == 1
    assert policy.status()["missedSchedules"] == 0
    assert policy.condition("Stalled") == {}


def changed(policy: Policy) -> str:
    """When the API server says that the CronJob's spec was last changed."""
    entries = policy.cron_job()["metadata"]["managedFields"]
    times: list[str] = [entry["time"] for entry in entries if "f:spec" in entry["fieldsV1"]]
    return max(times)


def await_next_second(than: str) -> None:
    eventually(lambda: text(datetime.now(UTC)) > than, what="another second")


def test_every_change_of_the_spec_is_known_by_its_time(own: Policies, by_hand: Controller) -> None:
    policy = own.named()
    policy.apply()
    by_hand.look(policy)
    for change in ({"suspend": True}, {"suspend": False}, {"schedule": "1 2 29 2 *"}, {"timeZone": "Asia/Tokyo"}):
        before = changed(policy)
        await_next_second(before)
        policy.apply(**change)
        by_hand.look(policy)
        assert changed(policy) > before, change


def test_a_cron_job_suspended_for_a_while_by_somebody_is_known_by_its_time(own: Policies, by_hand: Controller) -> None:
    policy = own.named()
    policy.apply()
    by_hand.look(policy)
    before = changed(policy)
    for suspend in (True, False):
        await_next_second(before)
        patch = json.dumps({"spec": {"suspend": suspend}})
        where = ("cronjob", policy.cron_job_name, "-n", policy.namespace, "--type=merge")
        own.kubectl.run("patch", *where, "-p", patch)
    resumed = changed(policy)
    assert resumed > before
    by_hand.look(policy)
    assert changed(policy) >= resumed


def test_a_start_in_the_future_is_told_and_a_new_cron_job_is_the_way_out(policies: Policies) -> None:
    policy = policies.ready(schedule="50 * * * *")
    say_started(policy, datetime(2099, 1, 1, tzinfo=UTC))
    stalled = policy.await_condition("Stalled", "True", "LastScheduleInFuture")
    advice = f"kubectl delete cronjob {policy.cron_job_name}"
    assert advice in stalled["message"]
    policies.kubectl.run(*advice.split()[1:], "-n", policy.namespace)
    policy.await_status(lambda s: "Stalled" not in {c["type"] for c in s["conditions"]}, "not stalled any more")
    assert last_schedule_time(policy.cron_job()) is None
    assert policy.status()["missedSchedules"] == 0


def test_r1_2_what_is_known_of_runs_outlives_the_cron_job_and_the_controller(
    own: Policies, namespace: str, start_controller: StartController
) -> None:
    process = start_controller(namespace)
    kubelet = Kubelet(own.kubectl, namespace)
    policy = own.ready(schedule="0 0 29 2 *")
    first = policy.request_run()
    kubelet.finish(first, report())
    policy.await_record(first)
    known = policy.status()
    process.kill()
    own.kubectl.run("delete", "cronjob", policy.cron_job_name, "-n", namespace)
    eventually(lambda: not policy.jobs(), what="the Jobs are collected with their CronJob")
    process.start()
    eventually(policy.has_cron_job, what="the CronJob is back")
    second = policy.request_run()
    kubelet.finish(second, report(sessions={"deleted": 4}))
    policy.await_record(second)
    status = policy.status()
    assert status["history"][1:] == known["history"]
    assert status["totals"]["runsSucceeded"] == 2
    assert status["totals"]["deletedSessions"] == 7
    assert status["missedSchedules"] == 0
    assert policy.condition("Stalled") == {}


@pytest.mark.exhaustive
def test_r1_2_runs_that_find_the_lock_held_again_and_again_stall_the_policy(policies: Policies) -> None:
    policy = policies.ready()
    kubelet = Kubelet(policies.kubectl, policies.namespace)
    for _ in range(3):
        assert policy.condition("Stalled") == {}
        job = policy.request_run()
        kubelet.finish(job, report(outcome="Skipped", reason="LockHeld", message="nothing was done"))
        policy.await_record(job)
    policy.await_condition("Stalled", "True", "LockHeld")
    assert policy.status()["totals"]["runsSkipped"] == 3
    assert policy.condition("LastRunSucceeded") == {}


def test_a_dry_run_is_told_as_one(policies: Policies) -> None:
    policy = policies.ready(dryRun=True)
    job = policy.request_run()
    Kubelet(policies.kubectl, policies.namespace).finish(job, report(dryRun=True))
    policy.await_record(job)
    judged = policy.condition("LastRunSucceeded")
    assert (judged["status"], judged["reason"]) == ("True", "DryRun")
    assert judged["message"] == "dry run: 3 of 3 expired sessions deleted"
    assert policy.status()["totals"]["deletedSessions"] == 0
    assert "lastSuccessTime" not in policy.status()
