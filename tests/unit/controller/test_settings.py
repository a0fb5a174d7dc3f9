"""Configuration is read once, checked as a whole, and wrong values are named."""

from __future__ import annotations

import pytest

from controller.settings.controller_settings import LeaderElection, Settings
from controller.settings.environment import InvalidSettingsError
from controller.settings.limits import Limits

IMAGE = {"SESSION_POLICY_JOB_IMAGE": "job:1"}


def test_only_the_image_is_required() -> None:
    assert Settings.from_environment(IMAGE) == Settings(job_image="job:1")


def test_lists_are_split_at_commas_and_empty_values_take_the_default() -> None:
    settings = Settings.from_environment(
        IMAGE
        | {
            "SESSION_POLICY_WATCH_NAMESPACES": " a, b ,,",
            "SESSION_POLICY_JOB_IMAGE_PULL_SECRETS": "registry",
            "SESSION_POLICY_RESYNC_SECONDS": "",
        }
    )
    assert settings.watch_namespaces == ("a", "b")
    assert settings.job_image_pull_secrets == ("registry",)
    assert settings.resync_seconds == 600


def test_every_problem_is_told_at_once_with_the_variable_s_name() -> None:
    wrong = {
        "SESSION_POLICY_JOB_IMAGE_PULL_POLICY": "Sometimes",
        "SESSION_POLICY_LOG_LEVEL": "LOUD",
        "SESSION_POLICY_RESYNC_SECONDS": "-1",
        "SESSION_POLICY_HTTP_PORT": "http",
    }
    with pytest.raises(InvalidSettingsError) as raised:
        Settings.from_environment(wrong)
    named = {problem.split()[0] for problem in raised.value.problems}
    assert named == {*wrong, "SESSION_POLICY_JOB_IMAGE"}


def test_the_election_is_off_outside_a_cluster_and_needs_to_know_where_it_is_otherwise() -> None:
    on = IMAGE | {"SESSION_POLICY_LEADER_ELECTION": "true"}
    where = {"SESSION_POLICY_LEASE_NAMESPACE": "ops", "SESSION_POLICY_POD_NAME": "controller-x"}
    assert Settings.from_environment(IMAGE | where).election is None
    expected = LeaderElection(lease_namespace="ops", pod_name="controller-x", lease_name="session-policy-operator")
    assert Settings.from_environment(on | where).election == expected
    named = Settings.from_environment(on | where | {"SESSION_POLICY_LEASE_NAME": "mine"})
    assert named.election is not None
    assert named.election.lease_name == "mine"
    with pytest.raises(InvalidSettingsError) as raised:
        Settings.from_environment(on)
    assert {problem.split()[0] for problem in raised.value.problems} == set(where)


def test_no_policy_is_limited_unless_the_environment_says_so() -> None:
    assert Settings.from_environment(IMAGE).limits == Limits()
    limited = Settings.from_environment(
        IMAGE
        | {
            "SESSION_POLICY_JOB_MAX_CPU": "2",
            "SESSION_POLICY_JOB_MAX_MEMORY": "1Gi",
            "SESSION_POLICY_JOB_MAX_TIMEOUT_SECONDS": "3600",
            "SESSION_POLICY_JOB_MAX_RETRIES": "0",
            "SESSION_POLICY_JOB_MAX_PARALLELISM": "2",
            "SESSION_POLICY_JOB_ALLOW_NODE_SELECTOR": "false",
            "SESSION_POLICY_JOB_ALLOW_TOLERATIONS": "true",
            "SESSION_POLICY_JOB_ALLOW_LOG_VOLUMES": "false",
        }
    )
    assert limited.limits == Limits(
        max_cpu="2",
        max_memory="1Gi",
        max_timeout_seconds=3600,
        max_retries=0,
        max_parallelism=2,
        allow_node_selector=False,
        allow_tolerations=True,
        allow_log_volumes=False,
    )


def test_a_limit_that_cannot_be_understood_is_no_limit_that_is_left_out() -> None:
    wrong = {
        "SESSION_POLICY_JOB_MAX_CPU": "two",
        "SESSION_POLICY_JOB_MAX_MEMORY": "0",
        "SESSION_POLICY_JOB_MAX_TIMEOUT_SECONDS": "29",
        "SESSION_POLICY_JOB_MAX_RETRIES": "-1",
        "SESSION_POLICY_JOB_MAX_PARALLELISM": "0",
        "SESSION_POLICY_JOB_ALLOW_NODE_SELECTOR": "no",
        "SESSION_POLICY_JOB_ALLOW_TOLERATIONS": "False",
        "SESSION_POLICY_JOB_ALLOW_LOG_VOLUMES": "0",
    }
    with pytest.raises(InvalidSettingsError) as raised:
        Settings.from_environment(IMAGE | wrong)
    assert {problem.split()[0] for problem in raised.value.problems} == wrong.keys()
