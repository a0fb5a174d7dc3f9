"""The controller is killed at every point that there is: no request is acted on twice, no outcome lost or doubled."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from tests.controlplane.conftest import StartController
from tests.controlplane.controller_process import ControllerProcess
from tests.controlplane.ledger import MOST_RUNS, Ledger
from tests.controlplane.policies import Policies
from tests.support.api_proxy import ApiProxy, Fault, Request
from tests.support.controlplane import ControlPlane
from tests.support.kube import Kubectl

# `make test` has test_restarts, which kills the controller a few times.
pytestmark = pytest.mark.exhaustive


@pytest.fixture
def ledger(cluster: Kubectl, namespace: str) -> Ledger:
    return Ledger(cluster, namespace)


class Death:
    """Kills the controller at its n-th write, and starts it anew, as the kubelet would."""

    def __init__(self, process: ControllerProcess, number: int, fault: Fault) -> None:
        self._process = process
        self._left = number
        self._fault = fault
        self.has_come = False

    def __call__(self, request: Request) -> Fault | None:
        if request.method == "GET" or self.has_come:
            return None
        self._left -= 1
        if self._left:
            return None
        self.has_come = True
        self._process.kill()
        self._process.spawn()
        return self._fault


@pytest.mark.parametrize("fault", [Fault.LOST_REQUEST, Fault.LOST_ANSWER], ids=["before the write", "after the write"])
def test_r1_2_killed_at_any_write_it_loses_and_doubles_nothing(
    own: Policies,
    ledger: Ledger,
    start_controller: StartController,
    control_plane: ControlPlane,
    operator_kubeconfig_via: Callable[[str], Path],
    fault: Fault,
) -> None:
    with ApiProxy(control_plane.url, control_plane.directory / "pki") as proxy:
        process = start_controller(own.namespace, KUBECONFIG=str(operator_kubeconfig_via(proxy.url)))
        for number in count(1):
            # Policies before this one are at rest: the writes are this one's.
            proxy.fault = death = Death(process, number, fault)
            policy = own.named(f"write-{number}")
            policy.apply()
            ledger.ask(policy)
            ledger.finish(policy)
            policy.await_condition("LastRunSucceeded", "True")
            ledger.await_settled([policy])
            if not death.has_come:
                break
        # First status, CronJob, Job, status, record: at the very least.
        assert number > 5


def test_r1_2_killed_at_any_moment_under_load_it_loses_and_doubles_nothing(
    own: Policies, ledger: Ledger, start_controller: StartController
) -> None:
    began = time.monotonic()
    process = start_controller(own.namespace)
    # On a slow machine it takes longer until it has begun to work.
    longest = max(1.4, 2 * (time.monotonic() - began))
    policies = [own.named(f"load-{number}") for number in range(10)]
    for policy in policies:
        policy.apply()
    chance = random.Random(20260301)
    for _ in range(20):
        for policy in policies:
            running = [job for job in policy.jobs() if not job.get("status", {}).get("conditions")]
            # A request that is replaced before it was seen is never acted on: that is no loss. One that comes while a
            # requested run is at work has to wait for its end.
            seen = not running and len(ledger.jobs(policy)) == len(ledger.asked(policy))
            if running and chance.random() < 0.7:
                ledger.finish(policy)
            elif seen and len(ledger.asked(policy)) < MOST_RUNS and chance.random() < 0.5:
                ledger.ask(policy)
        # Anywhere between start-up and the last of what there is to do.
        process.kill_after(chance.uniform(0.4, longest))
    process.start()
    for policy in policies:
        if not ledger.asked(policy):
            ledger.ask(policy)
        job = ledger.job_of(policy, ledger.asked(policy)[-1])
        if not own.kubectl.get("job", job, own.namespace).get("status", {}).get("conditions"):
            ledger.finish(policy)
    ledger.await_settled(policies)
    assert sum(len(ledger.asked(policy)) for policy in policies) > len(policies)
