"""What runs were asked for, and whether each was made once and told once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from policy.names import RUN_REQUEST_ANNOTATION
from tests.controlplane.kubelet import Kubelet, report
from tests.controlplane.policies import Policy
from tests.controlplane.somebody import Somebody
from tests.support.kube import Kubectl, eventually

MOST_RUNS = 3
"""So many finished Jobs does a CronJob keep. Of a policy with more, Kubernetes itself removes the evidence."""


class Ledger:
    """The requested runs of one namespace's policies."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._somebody = Somebody(kubectl.kubeconfig)
        self._kubelet = Kubelet(kubectl, namespace)
        self._namespace = namespace
        self._tokens: dict[str, list[str]] = {}
        self._jobs: dict[str, dict[str, dict[str, Any]]] = {}
        self._ended: set[str] = set()

    def ask(self, policy: Policy) -> str:
        """Request a run and return its token."""
        tokens = self._tokens.setdefault(policy.name, [])
        assert len(tokens) < MOST_RUNS
        tokens.append(f"{policy.name}-run-{len(tokens)}")
        self._somebody.request_run(self._namespace, policy.name, tokens[-1])
        return tokens[-1]

    def asked(self, policy: Policy) -> list[str]:
        """The tokens of a policy's requests, the oldest first."""
        return self._tokens.get(policy.name, [])

    def jobs(self, policy: Policy) -> dict[str, dict[str, Any]]:
        """All Jobs of the policy that were ever seen, by UID: one that was removed and made again is a second one."""
        seen = self._jobs.setdefault(policy.name, {})
        seen |= {job["metadata"]["uid"]: job for job in policy.jobs()}
        return seen

    def job_of(self, policy: Policy, token: str) -> str:
        """Name of the request's Job, once it is there."""

        def probe() -> str:
            found = [job for job in self.jobs(policy).values() if _token(job) == token]
            return found[0]["metadata"]["name"] if found else ""

        return eventually(probe, what=f"a Job for request {token}")

    def finish(self, policy: Policy, token: str | None = None) -> None:
        """The run of this request, by default of the newest, ends well; again is nothing: a container ends once."""
        job = self.job_of(policy, token or self.asked(policy)[-1])
        if job not in self._ended:  # until the Job controller has looked, the Job does not say so
            self._kubelet.finish(job, report())
            self._ended.add(job)

    def await_settled(self, policies: Sequence[Policy]) -> None:
        """Wait until every request has its Job and every outcome is recorded; check that it is so exactly once."""
        for policy in policies:
            for token in self.asked(policy):
                self.job_of(policy, token)

        def unrecorded() -> list[str]:
            return [policy.name for policy in policies if self.jobs(policy).keys() - _recorded(policy).keys()]

        eventually(lambda: not unrecorded(), what="all outcomes are recorded")
        for policy in policies:
            self._check(policy)

    def _check(self, policy: Policy) -> None:
        jobs = self.jobs(policy)
        made = Counter(_token(job) for job in jobs.values())
        assert made == Counter(self.asked(policy)), f"{policy.name}: one Job for each request"
        assert _recorded(policy) == Counter(jobs.keys()), f"{policy.name}: one record for each Job"
        status = policy.status()
        assert status["lastHandledRunRequest"] == self.asked(policy)[-1]
        assert {record["outcome"] for record in status["history"]} == {"Succeeded"}, status["history"]
        assert status.get("consecutiveFailures", 0) == 0
        assert status["totals"]["runsSucceeded"] == len(jobs)
        # An Event is a courtesy and may be missing, but none may tell of a run twice.
        told = Counter(message for reason, message in policy.events() if reason == "RunSucceeded")
        assert max(told.values(), default=1) == 1, told


def _recorded(policy: Policy) -> Counter[str]:
    return Counter(record["jobUID"] for record in policy.status().get("history", []))


def _token(job: dict[str, Any]) -> str:
    token: str = job["metadata"]["annotations"][RUN_REQUEST_ANNOTATION]
    return token
