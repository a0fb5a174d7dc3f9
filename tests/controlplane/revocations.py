"""Revocations as a test sees and handles them with kubectl."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

from policy.names import API_VERSION, REVOCATION_KIND, REVOCATION_LABEL
from tests.controlplane.api import Api
from tests.support.kube import Kubectl, eventually

# Of these tests alone: the log of a controller that tests share is searched for it.
CANARY = "revocation-canary"
USER = f"{CANARY}-user"


def manifest(name: str, **spec: Any) -> dict[str, Any]:
    """A SessionRevocation; of a user, unless it says otherwise."""
    target = {} if "sessionHash" in spec else {"user": USER}
    return {
        "apiVersion": API_VERSION,
        "kind": REVOCATION_KIND,
        "metadata": {"name": name},
        "spec": {**target, **spec},
    }


def report(reason: str = "Revoked", *, dry_run: bool = False, **counts: int) -> str:
    """A report as the container writes it."""
    return json.dumps({"reason": reason, "message": reason, "dryRun": dry_run, "sessions": counts})


class Revocation:
    """One revocation on the cluster."""

    def __init__(self, kubectl: Kubectl, namespace: str, policy: str, **spec: Any) -> None:
        self.kubectl = kubectl
        self.api = Api(kubectl.kubeconfig)
        self.namespace = namespace
        self.name = f"ticket-{secrets.token_hex(4)}"
        self._manifest = manifest(self.name, policyName=policy, **spec)

    def apply(self) -> Revocation:
        """Apply it."""
        self.kubectl.apply(self._manifest, self.namespace)
        return self

    def find(self) -> dict[str, Any] | None:
        """It as stored, if it is there."""
        return self.api.get("srev", self.namespace, self.name)

    def get(self) -> dict[str, Any]:
        """It as stored."""
        found = self.find()
        assert found is not None, f"there is no revocation {self.name}"
        return found

    def status(self) -> dict[str, Any]:
        """Its status."""
        status: dict[str, Any] = self.get().get("status", {})
        return status

    def conditions(self) -> dict[str, tuple[str, str]]:
        """Status and reason of each condition."""
        return {c["type"]: (c["status"], c["reason"]) for c in self.status().get("conditions", [])}

    def message(self) -> str:
        """What Complete says."""
        (found,) = (c["message"] for c in self.status()["conditions"] if c["type"] == "Complete")
        return str(found)

    def await_state(self, status: str, reason: str) -> dict[str, Any]:
        """Its status, once Complete is so."""
        self._await(lambda: self.conditions().get("Complete") == (status, reason), f"{status} {reason}")
        return self.status()

    def await_job(self) -> str:
        """Name of its Job, once that may start."""

        def started() -> str:
            jobs = self.jobs()
            return jobs[0]["metadata"]["name"] if jobs and not jobs[0]["spec"]["suspend"] else ""

        return str(self._await(started, "its Job starts"))

    def wait(self, condition: str) -> None:
        """As a user waits for it."""
        self.kubectl.run("wait", f"srev/{self.name}", "-n", self.namespace, f"--for={condition}", "--timeout=240s")

    def jobs(self) -> list[dict[str, Any]]:
        """Its Jobs."""
        return self.api.list("jobs", self.namespace, f"{REVOCATION_LABEL}={self.get()['metadata']['uid']}")

    def events(self) -> list[tuple[str, str]]:
        """Reason and message of its Events."""
        return [
            (event["reason"], event["message"])
            for event in self.api.list("events", self.namespace)
            if event["involvedObject"]["name"] == self.name and event["involvedObject"]["kind"] == REVOCATION_KIND
        ]

    def _await(self, probe: Callable[[], Any], what: str) -> Any:
        try:
            return eventually(probe, what=f"{self.name}: {what}")
        except AssertionError as error:
            error.add_note(json.dumps(self.status(), indent=1))
            raise
