"""The way to the API server fails, in every way there is: no outcome is lost, none is told twice, the process lives.

Most of them cut the way in a proxy before the API server, which goes on working for all others.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.controlplane.conftest import StartController
from tests.controlplane.ledger import MOST_RUNS, Ledger
from tests.controlplane.policies import Policies
from tests.controlplane.somebody import Somebody
from tests.support.api_proxy import ApiProxy, Fault, Request, no_fault
from tests.support.controlplane import ControlPlane
from tests.support.kube import Kubectl, eventually
from tests.support.patience import PATIENCE_SECONDS
from tests.support.tcp_proxy import TcpProxy

# `make test` has test_restarts, where the API server crashes and freezes, and test_cache, where writes are refused.
pytestmark = pytest.mark.exhaustive

# After this time without a byte, Kopf takes a watch for dead.
_WATCH_INACTIVITY_SECONDS = 70


@pytest.fixture
def somebody(cluster: Kubectl) -> Somebody:
    return Somebody(cluster.kubeconfig)


@pytest.fixture
def ledger(cluster: Kubectl, namespace: str) -> Ledger:
    return Ledger(cluster, namespace)


# How often each policy is changed by somebody else while its outcome waits to be written.
_STORM_ROUNDS = 200


@contextmanager
def repeating(action: Callable[[], object]) -> Iterator[Callable[[], int]]:
    """Something that happens over and over in another thread; gives a function that counts how often it has."""
    ended = threading.Event()
    count = 0
    failures: list[BaseException] = []

    def work() -> None:
        nonlocal count
        try:
            while not ended.is_set():
                action()
                count += 1
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield lambda: count
    finally:
        ended.set()
        thread.join(timeout=PATIENCE_SECONDS)
    assert not failures, failures


class Chance:
    """Picks faults; the same ones each time the test runs, as far as the requests come in the same order."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def __call__(self, request: Request) -> Fault | None:
        # Writes are what could be lost or doubled. Reads fail more seldom, so that most reconciliations reach a write.
        share = 0.1 if request.method == "GET" else 0.35
        return self._random.choice(list(Fault)) if self._random.random() < share else None


def test_r1_2_errors_and_lost_answers_lose_and_double_nothing(
    own: Policies,
    ledger: Ledger,
    start_controller: StartController,
    control_plane: ControlPlane,
    operator_kubeconfig_via: Callable[[str], Path],
) -> None:
    chance = Chance(seed=20260301)
    with ApiProxy(control_plane.url, control_plane.directory / "pki", chance) as proxy:
        process = start_controller(own.namespace, KUBECONFIG=str(operator_kubeconfig_via(proxy.url)))
        policies = [own.named(f"faulty-{number}") for number in range(6)]
        for policy in policies:
            policy.apply()
        for _ in range(MOST_RUNS):
            for policy in policies:
                ledger.ask(policy)
            for policy in policies:
                ledger.finish(policy)
        ledger.await_settled(policies)
        for policy in policies:
            policy.await_condition("Ready", "True")
        assert process.is_running()
        assert process.is_healthy()
    met = Counter((exchange.fault, exchange.request.method) for exchange in proxy.exchanges)
    for fault in Fault:
        assert met[fault, "POST"] + met[fault, "PATCH"], fault
    # There are few reads: the controller decides by what it has been told.
    assert sum(met[fault, "GET"] for fault in Fault)
    # What was cut or refused is tried again, but nothing is hammered at.
    assert sum(met.values()) < 3000


def test_r1_2_the_watches_are_cut_again_and_again(
    own: Policies,
    ledger: Ledger,
    somebody: Somebody,
    start_controller: StartController,
    control_plane: ControlPlane,
    operator_kubeconfig_via: Callable[[str], Path],
) -> None:
    with TcpProxy(control_plane.api_port) as network:
        process = start_controller(own.namespace, KUBECONFIG=str(operator_kubeconfig_via(network.url)))
        policies = [own.named(f"cut-{number}") for number in range(20)]
        for policy in policies:
            policy.apply()
        cut = 0
        for number, policy in enumerate(policies):
            cut += network.cut()
            somebody.merge("sessionpolicies", own.namespace, policy.name, {"spec": {"schedule": f"{number} 3 * * *"}})
            cut += network.cut()
            ledger.ask(policy)
        for policy in policies:
            ledger.finish(policy)
            cut += network.cut()
        ledger.await_settled(policies)
        for number, policy in enumerate(policies):
            policy.await_condition("Ready", "True")
            assert policy.cron_job()["spec"]["schedule"] == f"{number} 3 * * *"
        assert process.is_running()
    assert cut > len(policies)


def test_r1_2_minutes_without_an_api_server_cost_no_outcome(
    own: Policies,
    ledger: Ledger,
    somebody: Somebody,
    start_controller: StartController,
    control_plane: ControlPlane,
    operator_kubeconfig_via: Callable[[str], Path],
) -> None:
    """Long, because a silent watch is given up after 70 seconds, and what happens then is what is tested."""
    with TcpProxy(control_plane.api_port) as network:
        process = start_controller(own.namespace, KUBECONFIG=str(operator_kubeconfig_via(network.url)))
        policies = [own.ready(f"away-{number}") for number in range(5)]
        edited, drifted, deleted = (own.ready(name) for name in ("edited", "drifted", "deleted"))
        for policy in policies:
            ledger.ask(policy)
        for policy in policies:
            policy.await_status(lambda status: "lastHandledRunRequest" in status, "the request is handled")
        network.freeze()
        frozen = time.monotonic()
        for policy in policies:
            ledger.finish(policy)
        edited.apply(schedule="1 2 3 4 5")
        own.kubectl.run("delete", "spol", deleted.name, "-n", own.namespace)
        new = own.named("new")
        new.apply()
        while time.monotonic() < frozen + _WATCH_INACTIVITY_SECONDS + 5:
            assert process.is_healthy(), "a restart by the kubelet would not bring the API server back"
            time.sleep(1)
        # Now nobody listens any more, until the server is back.
        network.refuse()
        suspended = [{"op": "replace", "path": "/spec/suspend", "value": True}]
        somebody.change("cronjobs", own.namespace, drifted.cron_job_name, suspended)
        refused = time.monotonic()
        while time.monotonic() < refused + 10:
            assert process.is_healthy()
            time.sleep(1)
        network.restore()
        ledger.await_settled(policies)
        new.await_condition("Ready", "True")
        edited.await_condition("Ready", "True")
        assert edited.cron_job()["spec"]["schedule"] == "1 2 3 4 5"
        eventually(lambda: drifted.cron_job()["spec"]["suspend"] is False, what="the drift is put back")
        assert not deleted.has_cron_job()
        # And it listens again: what happens from now on is seen without a resync, and before a watch is given up.
        policies[0].apply(schedule="2 3 4 5 6")
        eventually(
            lambda: policies[0].cron_job()["spec"]["schedule"] == "2 3 4 5 6",
            what="a later edit is seen",
            timeout_seconds=_WATCH_INACTIVITY_SECONDS - 5,
        )
        assert process.is_running()


def test_r1_2_an_api_server_restarted_in_the_middle_of_the_work(
    own: Policies,
    ledger: Ledger,
    somebody: Somebody,
    start_controller: StartController,
    own_control_plane: ControlPlane,
) -> None:
    process = start_controller(own.namespace)
    policies = [own.named(f"restart-{number}") for number in range(12)]
    for policy in policies:
        policy.apply()
    for hour in (1, 2):
        for policy in policies:
            somebody.merge("sessionpolicies", own.namespace, policy.name, {"spec": {"schedule": f"0 {hour} 29 2 *"}})
            ledger.ask(policy)
        own_control_plane.kill_api_server()
        assert process.is_healthy()
        own_control_plane.start_api_server()
        for policy in policies:
            ledger.finish(policy)
    ledger.await_settled(policies)
    for policy in policies:
        policy.await_condition("Ready", "True")
        assert policy.cron_job()["spec"]["schedule"] == "0 2 29 2 *"
    assert process.is_running()


def test_r1_2_a_storm_of_changes_by_others_loses_no_outcome_and_is_not_fought(
    own: Policies,
    ledger: Ledger,
    somebody: Somebody,
    start_controller: StartController,
    control_plane: ControlPlane,
    operator_kubeconfig_via: Callable[[str], Path],
) -> None:
    with ApiProxy(control_plane.url, control_plane.directory / "pki") as proxy:
        start_controller(own.namespace, KUBECONFIG=str(operator_kubeconfig_via(proxy.url)))
        policies = [own.ready(f"storm-{number}") for number in range(3)]
        for policy in policies:
            ledger.ask(policy)
        for policy in policies:
            policy.await_status(lambda status: "lastHandledRunRequest" in status, "the request is handled")

        def write() -> None:
            for policy in policies:
                changed = {"metadata": {"annotations": {"example.com/round": secrets.token_hex(4)}}}
                somebody.merge("sessionpolicies", own.namespace, policy.name, changed)

        def write_first(request: Request) -> Fault | None:
            """As bad as it can be: each status is out of date when it is written."""
            if request.method == "PATCH" and request.path.endswith("/status"):
                write()
            return None

        proxy.fault = write_first
        calm = len(proxy.exchanges)

        def refused() -> Counter[str]:
            storm = proxy.exchanges[calm:]
            return Counter(exchange.request.path for exchange in storm if exchange.status == HTTPStatus.CONFLICT)

        with repeating(write) as rounds:
            for policy in policies:
                ledger.finish(policy)
            eventually(lambda: len(refused()) == len(policies), what="each has met the storm")
            raged = rounds()
            eventually(lambda: rounds() > raged + _STORM_ROUNDS, what="the storm has raged")
            raged = rounds()
        # It backs off: not an attempt for each of the changes.
        assert max(refused().values()) <= raged / 20, refused()
        assert len(proxy.exchanges[calm:]) < raged
        assert not any(policy.status().get("history") for policy in policies)
        proxy.fault = no_fault
        ledger.await_settled(policies)
