"""Two controllers on a real cluster: one leads, and when it is killed nothing is lost or told twice."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.e2e.application import Application
from tests.e2e.operator_release import NAMESPACE, OperatorRelease
from tests.support.exposition import samples
from tests.support.kube import eventually

pytestmark = pytest.mark.timeout(400)


def test_r5_the_leaders_metrics_say_what_the_status_says(application: Application, operator: OperatorRelease) -> None:
    application.seed()
    application.apply_policy()
    application.wait_for("Ready")
    run = application.request_run()
    status = application.status()
    leader = operator.leader()

    def shown() -> dict[str, float] | None:
        found = samples(operator.metrics(leader), namespace=application.namespace, policy=application.name)
        return found if found.get("runs_total Succeeded") else None

    told = eventually(shown, what="the run is in the metrics")
    assert told["ready"] == 1
    assert told["running"] == 0
    assert told["last_run_outcome Succeeded"] == 1
    assert told["runs_total Succeeded"] == status["totals"]["runsSucceeded"] == 1
    assert told["deleted_sessions_total"] == status["totals"]["deletedSessions"]
    for state in ("expired", "evicted", "deleted", "remaining"):
        assert told[f"last_run_sessions {state}"] == run["sessions"][state]
    assert told["active_sessions"] == run["sessions"]["active"]
    completed = datetime.fromisoformat(run["completionTime"]).timestamp()
    assert told["last_run_timestamp_seconds"] == completed
    assert samples(operator.metrics(leader))["controller_leader"] == 1

    # Whoever stands by says nothing of policies: summed over all controllers, nothing counts twice.
    (standby,) = operator.pods() - {leader}
    others = operator.metrics(standby)
    assert samples(others)["controller_leader"] == 0
    assert samples(others, policy=application.name) == {}


def test_r1_3_a_run_that_ends_while_the_leader_is_dead_is_recorded_once(
    application: Application, operator: OperatorRelease
) -> None:
    application.seed()
    application.hold_deletes()
    application.apply_policy()
    application.wait_for("Ready")
    job = application.start_run()
    application.await_job_running(job)
    killed = operator.leader()

    operator.kubectl.run("delete", "pod", killed, "-n", NAMESPACE, "--grace-period=0", "--force")
    application.release_deletes()

    run = application.await_run(job)
    assert run["outcome"] == "Succeeded"
    assert eventually(lambda: operator.leader() != killed, what="another controller leads")
    operator.await_rollout()
    again = application.request_run()
    status = application.status()
    assert [record["jobUID"] for record in status["history"]] == [again["jobUID"], job]
    assert status["totals"]["runsSucceeded"] == 2
    assert status["totals"]["deletedSessions"] == run["sessions"]["deleted"] > 0
