"""Two controllers, one Lease: one works, the other stands by; nothing is lost and nothing happens twice."""

from __future__ import annotations

import random

import pytest

from tests.controlplane.conftest import Candidates
from tests.controlplane.controller_process import ControllerProcess
from tests.controlplane.kubelet import Kubelet, report
from tests.controlplane.policies import Policies, Policy
from tests.support.controlplane import ControlPlane
from tests.support.kube import eventually


def pair(candidates: Candidates) -> tuple[ControllerProcess, ControllerProcess]:
    """The leader, and one that stands by."""
    leader = candidates.add()
    candidates.await_leader(leader)
    return leader, candidates.add()


def assert_each_told_once(policy: Policy, jobs: list[str]) -> None:
    """Each Job's end is in the history once, and in one Event."""
    for job in jobs:
        policy.await_record(job)
    recorded = [record["jobName"] for record in policy.status()["history"]]
    assert sorted(recorded) == sorted(jobs)
    told = [message for reason, message in policy.events() if reason == "RunSucceeded"]
    assert len(told) == len(set(told))


def test_one_works_and_the_other_stands_by_ready_to(candidates: Candidates, own: Policies) -> None:
    leader, standby = pair(candidates)
    own.ready()
    assert leader.is_leader()
    assert standby.is_healthy()
    assert standby.is_ready()
    assert not standby.is_leader()
    assert 'policy="' in leader.metrics()
    assert 'policy="' not in standby.metrics()
    assert standby.stop() == 0
    assert leader.is_leader()


def test_a_leader_that_ends_in_order_hands_over_at_once(
    candidates: Candidates, own: Policies, kubelet: Kubelet
) -> None:
    leader, standby = pair(candidates)
    policy = own.ready()
    job = policy.request_run()
    before = candidates.lease()
    assert leader.stop() == 0
    # Given back, not expired: else the holder would still be there.
    assert candidates.lease()["holderIdentity"] != before["holderIdentity"]
    kubelet.finish(job, report())
    candidates.await_leader(standby)
    assert_each_told_once(policy, [job])
    assert candidates.lease()["leaseTransitions"] == before["leaseTransitions"] + 1


@pytest.mark.exhaustive
def test_killed_leaders_are_replaced_and_no_outcome_is_lost_or_doubled(
    candidates: Candidates, own: Policies, kubelet: Kubelet
) -> None:
    leader, standby = pair(candidates)
    policy = own.ready()
    chance = random.Random(20261120)
    jobs: list[str] = []
    for _ in range(3):
        ending = [policy.request_run(), policy.make_job_by_hand(), policy.make_job_by_hand()]
        for job in ending:
            kubelet.finish(job, report())
        # Wherever it is in reading, recording and telling.
        leader.work_for(chance.uniform(0.0, 0.3))
        leader.kill()
        leader, standby = candidates.await_leader(standby), leader
        standby.start()
        jobs += ending
        assert_each_told_once(policy, jobs)


def test_a_leader_that_was_frozen_writes_nothing_when_it_wakes_up(
    candidates: Candidates, own: Policies, kubelet: Kubelet
) -> None:
    leader, standby = pair(candidates)
    policy = own.ready()
    job = policy.request_run()
    leader.freeze()
    try:
        kubelet.finish(job, report())
        candidates.await_leader(standby)
        assert_each_told_once(policy, [job])
        second = policy.request_run()
        kubelet.finish(second, report())
        before = len(leader.log())
    finally:
        leader.thaw()
    assert leader.wait() == 1  # the kubelet starts it anew, to stand by
    assert "RunSucceeded" not in leader.log()[before:]
    assert_each_told_once(policy, [job, second])
    assert standby.is_leader()


@pytest.mark.exhaustive
def test_an_api_server_that_is_away_for_longer_than_the_lease_pauses_the_leader_and_does_not_end_it(
    candidates: Candidates, own: Policies, kubelet: Kubelet, own_control_plane: ControlPlane
) -> None:
    leader, standby = pair(candidates)
    policy = own.ready()
    job = policy.request_run()
    kubelet.finish(job, report())
    own_control_plane.pause_api_server()
    try:
        eventually(lambda: not leader.is_leader(), what="the leader pauses")
        assert leader.is_healthy()
        assert leader.is_ready()
        assert standby.is_healthy()
        assert not standby.is_leader()
    finally:
        own_control_plane.resume_api_server()
    candidates.await_leader(leader, standby)
    assert_each_told_once(policy, [job])
    assert sum(process.is_leader() for process in (leader, standby)) == 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("role", ["leader", "standby"])
def test_sigterm_ends_it_while_the_api_server_is_frozen(
    candidates: Candidates, own: Policies, own_control_plane: ControlPlane, role: str
) -> None:
    leader, standby = pair(candidates)
    own.ready().apply(schedule="1 1 1 1 *")  # something is in hand, or will be
    own_control_plane.pause_api_server()
    try:
        assert (leader if role == "leader" else standby).stop() == 0
    finally:
        own_control_plane.resume_api_server()


def test_a_lease_that_somebody_deletes_does_not_stop_the_work(candidates: Candidates, own: Policies) -> None:
    leader, standby = pair(candidates)
    holder = candidates.lease()["holderIdentity"]
    own.kubectl.run("delete", "lease", candidates.lease_name, "-n", "default")
    eventually(
        lambda: own.kubectl.exists("lease", candidates.lease_name, "default"),
        what="there is a Lease",
    )
    assert candidates.lease()["holderIdentity"] == holder
    assert leader.is_leader()
    assert not standby.is_leader()


def test_a_taken_port_is_told_with_exit_code_1(candidates: Candidates) -> None:
    first = candidates.add()
    with pytest.raises(AssertionError, match="cannot listen"):
        candidates.add(SESSION_POLICY_HTTP_PORT=str(first.http_port))
