"""Why a run does not end well, as a real kubelet and a real Job controller show it: the status says it.

The control plane's tests play the kubelet. These hold that it was played right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.e2e.application import SECRET, TTL_SECONDS, Application
from tests.e2e.conftest import prepared_application
from tests.e2e.operator_release import TALKATIVE, OperatorRelease, merged
from tests.e2e.stores import Stores
from tests.support.kube import Kubectl

pytestmark = pytest.mark.timeout(400)

SHORT = {"retries": 0, "timeoutSeconds": 30}
MISSING = "registry.invalid/session-policy-job"


def without_secret(application: Application) -> None:
    """The Secret that the policy names is not there."""
    application.kubectl.run("delete", "secret", SECRET, "-n", application.namespace)
    application.apply_policy()


def with_little_memory(application: Application) -> None:
    """The container may use less than it needs to start."""
    memory = {"memory": "16Mi"}
    application.apply_policy(job={"retries": 0, "resources": {"requests": memory, "limits": memory}})


def without_end(application: Application) -> None:
    """The first deletion does not come back."""
    application.seed()
    application.hold_deletes()
    application.apply_policy(job=SHORT)


def over_quota(application: Application) -> None:
    """The namespace has no memory to give."""
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"limits.memory": "1Mi"}}}
    application.kubectl.apply({"apiVersion": "v1", "kind": "ResourceQuota", **quota}, application.namespace)
    application.kubectl.run(
        *("wait", "--for=jsonpath={.status.hard}", "resourcequota/none", "-n", application.namespace),
        "--timeout=30s",
    )
    application.apply_policy()


SCENES = (without_secret, with_little_memory, without_end, over_quota)
Scene = Callable[[Application], None]
Started = dict[Scene, tuple[Application, str]]


@pytest.fixture(scope="module")
def started(operator: OperatorRelease, kubectl: Kubectl, stores: Stores, version: str) -> Iterator[Started]:
    """A run in each of the scenes, all at once: most of what happens is waiting."""
    with ExitStack() as stack:
        runs: Started = {}
        for scene in SCENES:
            application = stack.enter_context(prepared_application(kubectl, stores, version))
            scene(application)
            application.wait_for("Ready")
            runs[scene] = (application, application.start_run())
        yield runs


def test_a_missing_secret_is_told_and_the_run_goes_on_once_it_is_there(started: Started) -> None:
    application, job = started[without_secret]
    stalled = application.await_condition("Stalled", "True", "CreateContainerConfigError")
    assert SECRET in stalled["message"]
    assert application.condition("Ready")["status"] == "True", "a bad run never makes Ready false"
    assert application.condition("LastRunSucceeded") == {}

    application.make_secret()
    assert application.await_run(job)["outcome"] == "Succeeded"
    application.await_condition("Stalled", None)
    assert application.condition("LastRunSucceeded")["status"] == "True"


def test_a_run_out_of_memory_is_told(started: Started) -> None:
    application, job = started[with_little_memory]
    run = application.await_run(job)
    assert (run["outcome"], run["reason"]) == ("Failed", "OOMKilled")
    assert "spec.job.resources" in run["message"]
    application.await_condition("LastRunSucceeded", "False", "OOMKilled")
    assert application.condition("Stalled") == {}
    assert application.condition("Ready")["status"] == "True"


def test_a_run_over_its_time_limit_is_told(started: Started) -> None:
    application, job = started[without_end]
    run = application.await_run(job)
    assert (run["outcome"], run["reason"]) == ("Failed", "DeadlineExceeded")
    assert "spec.job.timeoutSeconds" in run["message"]
    application.await_condition("LastRunSucceeded", "False", "DeadlineExceeded")
    assert application.condition("Stalled") == {}
    expired = f"SELECT session_id FROM sessions WHERE last_accessed_at < now() - interval '{TTL_SECONDS} s'"
    assert application.store.sql(expired), "what is said to have failed has not happened"


def test_a_quota_that_leaves_no_pod_is_told(started: Started) -> None:
    application, _ = started[over_quota]
    stalled = application.await_condition("Stalled", "True", "QuotaExceeded")
    assert "exceeded quota: none" in stalled["message"]
    assert application.condition("Ready")["status"] == "True"
    assert application.condition("LastRunSucceeded") == {}


def test_an_image_that_cannot_be_pulled_is_told_and_the_next_run_has_the_right_one(
    application: Application, operator: OperatorRelease
) -> None:
    wrong: dict[str, Any] = {"job": {"image": {"repository": MISSING}}}
    operator.install(merged(TALKATIVE, wrong))
    try:
        application.apply_policy(job=SHORT)
        application.wait_for("Ready")
        job = application.start_run()
        stalled = application.await_condition("Stalled", "True", "ImagePullBackOff")
        assert MISSING in stalled["message"]
    finally:
        operator.install(TALKATIVE)

    # The Pod's own time limit ends it; that is not why the run failed.
    run = application.await_run(job)
    assert (run["outcome"], run["reason"]) == ("Failed", "ImagePullBackOff")
    application.await_condition("LastRunSucceeded", "False", "ImagePullBackOff")
    assert application.request_run()["outcome"] == "Succeeded"
    application.await_condition("Stalled", None)
