"""Policies and what belongs to them, as a test sees and handles them with kubectl."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

from policy.names import API_VERSION, KIND, RUN_REQUEST_ANNOTATION, cron_job_name
from tests.controlplane.api import Api
from tests.support.kube import Kubectl, eventually

# No schedule of these comes up while tests run, so that every run is one a test asked for.
NEVER = "0 0 29 2 *"


def manifest(name: str, **spec: Any) -> dict[str, Any]:
    """A SessionPolicy with the least that it needs."""
    secret = {"secretKeyRef": {"name": "stores", "key": "database-url"}}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name},
        "spec": {"schedule": NEVER, "stores": {"database": {"urlFrom": secret}}, "job": {"retries": 0}} | spec,
    }


class Policy:
    """One policy on the cluster."""

    def __init__(self, kubectl: Kubectl, namespace: str, name: str) -> None:
        self.kubectl = kubectl
        self.api = Api(kubectl.kubeconfig)
        self.namespace = namespace
        self.name = name
        self.cron_job_name = cron_job_name(name)

    def apply(self, **spec: Any) -> None:
        """Apply the policy with this spec."""
        self.kubectl.apply(manifest(self.name, **spec), self.namespace)

    def get(self) -> dict[str, Any]:
        """The policy as stored."""
        found = self.api.get("spol", self.namespace, self.name)
        assert found is not None, f"there is no policy {self.name}"
        return found

    def status(self) -> dict[str, Any]:
        """Its status."""
        status: dict[str, Any] = self.get().get("status", {})
        return status

    def condition(self, kind: str) -> dict[str, Any]:
        """A condition, or an empty one."""
        found = [c for c in self.status().get("conditions", []) if c["type"] == kind]
        return found[0] if found else {}

    def await_status(self, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """The first status of which this holds."""

        def probe() -> dict[str, Any] | None:
            status = self.status()
            return status if status and holds(status) else None

        try:
            found = eventually(probe, what=f"{self.name}: {what}")
        except AssertionError as error:
            error.add_note(json.dumps(self.status(), indent=1))
            raise
        assert found is not None
        return found

    def await_condition(self, kind: str, status: str, reason: str | None = None) -> dict[str, Any]:
        """The condition, once it is so and of the policy's present generation."""
        generation = self.get()["metadata"]["generation"]

        def matching(seen: dict[str, Any]) -> list[dict[str, Any]]:
            return [
                c
                for c in seen.get("conditions", [])
                if (c["type"], c["status"]) == (kind, status)
                and reason in (None, c["reason"])
                and c["observedGeneration"] == generation
            ]

        seen = self.await_status(lambda s: bool(matching(s)), f"{kind}={status} {reason or ''}")
        return matching(seen)[0]

    def await_ready(self) -> None:
        """Wait until the policy as it is now is in force."""
        self.await_condition("Ready", "True")

    def cron_job(self) -> dict[str, Any]:
        """Its CronJob."""
        found = self.api.get("cronjobs", self.namespace, self.cron_job_name)
        assert found is not None, f"there is no CronJob {self.cron_job_name}"
        return found

    def has_cron_job(self) -> bool:
        """Whether there is a CronJob of its name."""
        return self.api.get("cronjobs", self.namespace, self.cron_job_name) is not None

    def jobs(self) -> list[dict[str, Any]]:
        """Its Jobs, the oldest first."""
        selector = f"sessionpolicy.dev/policy={self.cron_job_name}"
        jobs = self.api.list("jobs", self.namespace, selector)
        return sorted(jobs, key=lambda job: (job["metadata"]["creationTimestamp"], job["metadata"]["name"]))

    def request_run(self, token: str | None = None) -> str:
        """Ask for a run and return the name of the new Job."""
        before = {job["metadata"]["name"] for job in self.jobs()}
        token = token or secrets.token_hex(4)
        self.kubectl.run(
            *("annotate", "spol", self.name, f"{RUN_REQUEST_ANNOTATION}={token}", "--overwrite", "-n", self.namespace)
        )
        made: str = eventually(
            lambda: next((j["metadata"]["name"] for j in self.jobs() if j["metadata"]["name"] not in before), ""),
            what=f"a Job for request {token}",
        )
        return made

    def make_job_by_hand(self) -> str:
        """As a user does who knows CronJobs; returns the Job's name."""
        name = f"by-hand-{secrets.token_hex(4)}"
        self.kubectl.run("create", "job", name, f"--from=cronjob/{self.cron_job_name}", "-n", self.namespace)
        return name

    def await_record(self, job: str) -> dict[str, Any]:
        """The Job's record in the history."""

        def records(status: dict[str, Any]) -> list[dict[str, Any]]:
            return [record for record in status.get("history", []) if record["jobName"] == job]

        return records(self.await_status(lambda status: bool(records(status)), f"a record of Job {job}"))[0]

    def events(self) -> list[tuple[str, str]]:
        """Reason and message of its Events."""
        uid = self.get()["metadata"]["uid"]
        return [
            (event["reason"], event["message"])
            for event in self.api.list("events", self.namespace)
            if event["involvedObject"].get("uid") == uid
        ]

    def await_event(self, reason: str) -> str:
        """The message of an Event of this reason."""
        found: str = eventually(
            lambda: next((message for found, message in self.events() if found == reason), ""),
            what=f"an Event {reason} on {self.name}",
        )
        return found


class Policies:
    """Makes policies in one namespace."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self.kubectl = kubectl
        self.namespace = namespace

    def named(self, name: str | None = None) -> Policy:
        """A policy that is not applied yet."""
        return Policy(self.kubectl, self.namespace, name or f"policy-{secrets.token_hex(4)}")

    def ready(self, name: str | None = None, **spec: Any) -> Policy:
        """An applied policy that is Ready."""
        policy = self.named(name)
        policy.apply(**spec)
        policy.await_ready()
        return policy
