"""Uninstalling the operator never costs a policy, nor leaves one stuck."""

from __future__ import annotations

import pytest

from tests.e2e.application import POLICY, RESOURCE, Application
from tests.e2e.operator_release import CRD, OperatorRelease
from tests.support.kube import eventually


@pytest.mark.timeout(400)
def test_r1_4_uninstalling_keeps_policies_and_leaves_them_deletable(
    application: Application, operator: OperatorRelease
) -> None:
    application.apply_policy()
    application.wait_for("Ready")
    cron_job = application.policy()["status"]["cronJobName"]

    operator.uninstall()

    assert not operator.installed()
    assert application.kubectl.exists("crd", CRD)
    # Cleaning goes on: the CronJob is Kubernetes' own.
    assert application.kubectl.exists("cronjob", cron_job, application.namespace)
    assert not application.policy()["metadata"].get("finalizers")
    application.kubectl.run("delete", RESOURCE, POLICY, "-n", application.namespace, "--wait=true", "--timeout=30s")
    eventually(
        lambda: not application.kubectl.exists("cronjob", cron_job, application.namespace),
        what="the CronJob is collected",
    )

    # Installing again takes over the definition that was kept.
    operator.install()
    application.apply_policy()
    application.wait_for("Ready")
