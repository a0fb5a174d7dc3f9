"""A user is logged out with kubectl, on a real cluster with real stores."""

from __future__ import annotations

from typing import Any

import pytest

from policy.names import API_VERSION, GROUP, REVOCATION_KIND, REVOCATION_PLURAL
from tests.e2e.application import Application
from tests.e2e.operator_release import OperatorRelease
from tests.support.kube import eventually

pytestmark = pytest.mark.timeout(400)

RESOURCE = f"{REVOCATION_PLURAL}.{GROUP}"
USER = "greedy"


def revocation(name: str, **spec: Any) -> dict[str, Any]:
    """A SessionRevocation of the user."""
    return {
        "apiVersion": API_VERSION,
        "kind": REVOCATION_KIND,
        "metadata": {"name": name},
        "spec": {"user": USER, **spec},
    }


def test_a_user_is_logged_out_of_both_stores_and_named_nowhere(
    application: Application, operator: OperatorRelease
) -> None:
    seeded = application.seed()
    users = {session.id for session in seeded if session.user == USER}
    others = {session.id for session in seeded} - users
    application.apply_policy(suspend=True)
    application.wait_for("Ready")
    kubectl, namespace = application.kubectl, application.namespace

    kubectl.apply(revocation("ticket-1", policyName=application.name), namespace)
    kubectl.run("wait", "--for=condition=Complete", f"{RESOURCE}/ticket-1", "-n", namespace, "--timeout=60s")

    status = kubectl.get(RESOURCE, "ticket-1", namespace)["status"]
    assert status["sessions"]["found"] == len(users)
    assert status["sessions"]["revoked"] == len(users)
    assert status["sessions"]["left"] == 0
    assert application.database_ids() == {s.id for s in seeded if s.in_database} & others
    assert application.redis_ids() == others
    assert application.indexed_ids() == others

    # What `kubectl get` prints at a glance.
    row = kubectl.run("get", RESOURCE, "ticket-1", "-n", namespace, "--no-headers").split()
    assert row[:5] == ["ticket-1", application.name, "True", "Revoked", str(len(users))]

    # The user is named in the resource's spec, which its author wrote, and in the Pod that has to know. Nowhere else.
    told = [
        str(status),
        str(application.status()),
        kubectl.run("get", "events", "-n", namespace, "-o", "yaml"),
        kubectl.run("get", RESOURCE, "-n", namespace, "-o", "wide"),
        *(kubectl.run("logs", pod, "-n", namespace) for pod in kubectl.names("pods", namespace)),
        operator.logs(),
        operator.metrics(operator.leader()),
    ]
    for private in (USER, application.store.database_url, *users):
        assert private not in "\n".join(told)
    assert operator.denials(application.namespace) == []


def test_a_revocation_deletes_itself_with_its_job(application: Application, operator: OperatorRelease) -> None:
    application.apply_policy(suspend=True)
    application.wait_for("Ready")
    kubectl, namespace = application.kubectl, application.namespace

    kubectl.apply(revocation("ticket-2", policyName=application.name, ttlSecondsAfterFinished=0), namespace)

    kubectl.run("wait", "--for=delete", f"{RESOURCE}/ticket-2", "-n", namespace, "--timeout=90s")
    eventually(lambda: not kubectl.names("jobs", namespace), what="its Job is collected")
    assert operator.denials(application.namespace) == []
