"""The whole loop on a real cluster: policy, CronJob, run, status, stores."""

from __future__ import annotations

import pytest

from tests.e2e.application import POLICY, RESOURCE, Application
from tests.e2e.operator_release import OperatorRelease
from tests.support.kube import eventually

pytestmark = [pytest.mark.usefixtures("operator"), pytest.mark.timeout(400)]


def test_r1_2_a_requested_run_cleans_both_stores_and_is_told_in_the_status(
    application: Application, operator: OperatorRelease
) -> None:
    seeded = application.seed()
    application.apply_policy()
    application.wait_for("Ready")

    run = application.request_run()
    application.wait_for("LastRunSucceeded")

    live = {session.id for session in seeded.live}
    assert run["outcome"] == "Succeeded"
    assert run["sessions"]["expired"] == len(seeded.expired)
    assert run["sessions"]["evicted"] == len(seeded.evicted)
    assert run["sessions"]["deleted"] == len(seeded.expired) + len(seeded.evicted)
    assert run["sessions"]["active"] == len(live)
    assert application.database_ids() == live
    assert application.redis_ids() == live
    assert application.indexed_ids() == live
    assert application.keys_without_ttl() == set()

    # What `kubectl get` prints at a glance.
    row = application.kubectl.run("get", RESOURCE, POLICY, "-n", application.namespace, "--no-headers")
    for shown in ("True", "Succeeded", str(run["sessions"]["deleted"]), str(len(live))):
        assert shown in row.split()

    # The chart's rights are enough.
    assert operator.denials(application.namespace) == []

    # Nothing private was told on the way.
    told = application.everything_told() + operator.logs()
    for secret in [session.id for session in seeded] + ["greedy", application.store.database_url]:
        assert secret not in told

    # The second run finds nothing to do.
    again = application.request_run()
    assert again["outcome"] == "Succeeded"
    assert again["jobUID"] != run["jobUID"]
    assert again["sessions"]["deleted"] == 0
    assert application.database_ids() == live
    history = application.policy()["status"]["history"]
    assert [record["jobUID"] for record in history] == [again["jobUID"], run["jobUID"]]


def test_r6_a_run_shared_by_two_pods_is_one_run(application: Application) -> None:
    application.store.sql(
        "INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at) "
        "SELECT 'old-' || n, 'user-' || n, now() - interval '9 days', now() - interval '8 days' "
        "FROM generate_series(1, 5000) AS n; ANALYZE sessions;"
    )
    seeded = application.seed()
    application.apply_policy(
        cleanupBatchSize=100,
        cleanup={"strategy": "IdOrder"},
        safety={"maxDeletePercent": 100},
        job={"parallelism": 2, "retries": 0},
    )
    application.wait_for("Ready")

    uid = application.start_run()
    run = application.await_run(uid)

    assert run["outcome"] == "Succeeded", run
    assert run["sessions"]["deleted"] == 5000 + len(seeded.expired) + len(seeded.evicted)
    assert application.database_ids() == {session.id for session in seeded.live}
    assert [record["jobUID"] for record in application.history()] == [uid]
    application.await_job_end(uid)
    jobs = application.kubectl.list("jobs", application.namespace)
    (job,) = (job for job in jobs if job["metadata"]["uid"] == uid)
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["status"].get("failed", 0) == 0
    assert {"type": "Complete", "status": "True"}.items() <= job["status"]["conditions"][-1].items()


def test_r1_1_runs_start_by_schedule_until_suspended(application: Application) -> None:
    seeded = application.seed()
    application.apply_policy(schedule="* * * * *")
    application.wait_for("LastRunSucceeded", timeout_seconds=180)
    assert application.policy()["status"]["lastRun"]["trigger"] == "Schedule"
    assert application.database_ids() == {session.id for session in seeded.live}

    application.apply_policy(schedule="* * * * *", suspend=True)
    eventually(lambda: application.cron_job()["spec"]["suspend"], what=f"CronJob suspended: {application.policy()}")

    def ready_reason() -> str | None:
        conditions = application.policy()["status"]["conditions"]
        return next((c["reason"] for c in conditions if c["type"] == "Ready"), None)

    eventually(lambda: ready_reason() == "Suspended", what="Ready with reason Suspended")


def test_r1_1_an_edited_or_deleted_cronjob_is_put_back(application: Application) -> None:
    application.apply_policy()
    application.wait_for("Ready")
    name, namespace = application.policy()["status"]["cronJobName"], application.namespace
    schedule = application.cron_job()["spec"]["schedule"]

    patch = '{"spec":{"schedule":"1 1 1 1 *"}}'
    application.kubectl.run("patch", "cronjob", name, "-n", namespace, "--type=merge", "-p", patch)
    eventually(lambda: application.cron_job()["spec"]["schedule"] == schedule, what="the schedule is put back")

    uid = application.cron_job()["metadata"]["uid"]
    application.kubectl.run("delete", "cronjob", name, "-n", namespace, "--wait=true")
    eventually(lambda: application.kubectl.exists("cronjob", name, namespace), what="a new CronJob")
    assert application.cron_job()["metadata"]["uid"] != uid


def test_r1_1_a_deleted_policy_takes_its_cronjob_jobs_and_pods_with_it(application: Application) -> None:
    application.apply_policy()
    application.wait_for("Ready")
    application.request_run()
    assert application.kubectl.names("jobs", application.namespace)

    application.kubectl.run("delete", RESOURCE, POLICY, "-n", application.namespace, "--wait=true", "--timeout=60s")

    def nothing_left() -> bool:
        pods = application.kubectl.names("pods", application.namespace) - {"init"}
        jobs = application.kubectl.names("cronjobs,jobs", application.namespace)
        return not pods and not jobs

    eventually(nothing_left, timeout_seconds=120, what="CronJob, Jobs and Pods gone")
