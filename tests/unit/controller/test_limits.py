"""What the operator's configuration allows a policy to ask for: refused when it is more, never cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.manifests.cronjob import build_cron_job
from controller.selftest import probe_policy
from controller.settings.limits import Limits, NotAllowedError
from controller.settings.quantity import quantity_value
from policy.manifest import InvalidPolicyError, parse_policy
from tests.unit.controller.any_policy import ANY_SPEC
from tests.unit.controller.builders import POLICY_UID, SETTINGS, policy_resource

TIGHT = Limits(max_cpu="1", max_memory="512Mi", max_timeout_seconds=1200, max_retries=3, max_parallelism=2)
CLOSED = Limits(allow_node_selector=False, allow_tolerations=False, allow_log_volumes=False)


def built(limits: Limits, **spec: Any) -> dict[str, Any]:
    settings = SETTINGS.model_copy(update={"limits": limits})
    return build_cron_job(parse_policy(policy_resource(**spec)), POLICY_UID, settings)


def pod_of(cron_job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def resources(cron_job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod_of(cron_job)["containers"][0]["resources"]
    return found


@pytest.mark.parametrize(
    ("limits", "spec", "words"),
    [
        (TIGHT, {"job": {"resources": {"limits": {"cpu": 2}}}}, ["spec.job.resources.limits.cpu: 2 is over 1,"]),
        (TIGHT, {"job": {"resources": {"limits": {"cpu": "1001m"}}}}, ["spec.job.resources.limits.cpu: 1001m"]),
        (TIGHT, {"job": {"resources": {"requests": {"memory": "1Gi"}}}}, ["spec.job.resources.requests.memory: 1Gi"]),
        (TIGHT, {"job": {"timeoutSeconds": 1201}}, ["spec.job.timeoutSeconds: 1201 is over 1200,"]),
        (TIGHT, {"job": {"retries": 4}}, ["spec.job.retries: 4 is over 3,"]),
        (TIGHT, {"job": {"parallelism": 3}}, ["spec.job.parallelism: 3 is over 2,"]),
        (
            TIGHT,
            {"job": {"parallelism": 16, "retries": 4}},
            ["spec.job.parallelism: 16 is over 2,", "spec.job.retries: 4 is over 3,"],
        ),
        (
            TIGHT,
            {"job": {"retries": 4, "timeoutSeconds": 86400, "resources": {"limits": {"memory": "1E"}}}},
            ["spec.job.retries", "spec.job.timeoutSeconds", "spec.job.resources.limits.memory"],
        ),
        (CLOSED, {"job": {"nodeSelector": {"a": "b"}}}, ["spec.job.nodeSelector: "]),
        (CLOSED, {"job": {"tolerations": [{"operator": "Exists"}]}}, ["spec.job.tolerations: "]),
        (CLOSED, {"logs": {"volumeClaim": "data"}}, ["spec.logs.volumeClaim: "]),
    ],
)
def test_more_than_is_allowed_is_refused_with_field_value_bound_and_remedy(
    limits: Limits, spec: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(NotAllowedError) as raised:
        built(limits, **spec)
    assert len(raised.value.problems) == len(words)
    for problem, beginning in zip(sorted(raised.value.problems), sorted(words), strict=True):
        assert beginning in problem
        assert "operator's configuration" in problem
        assert problem.endswith("or ask the operator's administrator")
    built(Limits(), **spec)  # without limits it is fine


@pytest.mark.parametrize(
    ("limits", "spec"),
    [
        (TIGHT, {}),
        (TIGHT, {"job": {"resources": {"requests": {"cpu": "1000m"}, "limits": {"cpu": 1, "memory": "0.5Gi"}}}}),
        (TIGHT, {"job": {"timeoutSeconds": 1200, "retries": 3, "parallelism": 2, "nodeSelector": {"a": "b"}}}),
        (TIGHT, {"job": {"resources": {"limits": {"ephemeral-storage": "100Gi"}}}, "logs": {"volumeClaim": "c"}}),
        (CLOSED, {"job": {"retries": 10, "timeoutSeconds": 86400, "resources": {"limits": {"memory": "1E"}}}}),
    ],
)
def test_what_is_just_allowed_is_built_as_without_limits(limits: Limits, spec: dict[str, Any]) -> None:
    assert built(limits, **spec) == built(Limits(), **spec)


def test_built_in_defaults_give_way_to_smaller_bounds() -> None:
    small = Limits(max_cpu="0.1", max_memory="64Mi")
    assert resources(built(small)) == {
        "requests": {"cpu": "0.1", "memory": "64Mi"},
        "limits": {"cpu": "0.1", "memory": "64Mi"},
    }
    asked = {"resources": {"limits": {"memory": "32Mi"}, "requests": {"cpu": "50m"}}}
    assert resources(built(small, job=asked)) == {
        "requests": {"cpu": "50m", "memory": "32Mi"},
        "limits": {"cpu": "0.1", "memory": "32Mi"},
    }


def test_a_number_without_end_is_cut_in_the_message() -> None:
    with pytest.raises(NotAllowedError) as raised:
        built(TIGHT, job={"resources": {"limits": {"cpu": "9" * 1000}}})
    assert len(str(raised.value)) < 250


def test_a_quantity_that_is_none_is_told_as_such_whatever_the_limits_are() -> None:
    for limits in (TIGHT, Limits()):
        with pytest.raises(InvalidPolicyError, match="not a quantity") as raised:
            built(limits, job={"resources": {"requests": {"cpu": "1.2.3"}, "limits": {"cpu": 1}}})
        assert not isinstance(raised.value, NotAllowedError)


@settings(deadline=None)
@given(spec=ANY_SPEC, limits=st.sampled_from([TIGHT, CLOSED, Limits(max_cpu="10m", max_memory="1Mi")]))
def test_nothing_over_the_limits_is_ever_built(spec: dict[str, Any], limits: Limits) -> None:
    try:
        cron_job = built(limits, **spec)
    except InvalidPolicyError:
        return
    pod, job = pod_of(cron_job), cron_job["spec"]["jobTemplate"]["spec"]
    for amounts in resources(cron_job).values():
        for name, most in (("cpu", limits.max_cpu), ("memory", limits.max_memory)):
            assert not most or quantity_value(amounts[name]) <= quantity_value(most)
    assert limits.max_timeout_seconds is None or pod["activeDeadlineSeconds"] <= limits.max_timeout_seconds
    retries = job["backoffLimitPerIndex" if "backoffLimitPerIndex" in job else "backoffLimit"]
    assert limits.max_retries is None or retries <= limits.max_retries
    assert limits.max_parallelism is None or job.get("parallelism", 1) <= limits.max_parallelism
    assert limits.allow_node_selector or not pod["nodeSelector"]
    assert limits.allow_tolerations or not pod["tolerations"]
    assert limits.allow_log_volumes or not pod["volumes"]


def test_the_release_s_own_test_asks_for_no_more_than_the_narrowest_limits_allow() -> None:
    narrowest = CLOSED.model_copy(
        update={
            "max_cpu": "1m",
            "max_memory": "1Mi",
            "max_timeout_seconds": 30,
            "max_retries": 0,
            "max_parallelism": 1,
        }
    )  # the lowest that the settings take
    probe = probe_policy("web", "selftest")["spec"]
    assert built(narrowest, **probe)["spec"]["suspend"]


def test_a_job_as_the_server_shows_it_can_be_judged_too() -> None:
    job = built(Limits(), job={"retries": 4, "resources": {"limits": {"cpu": "3000m"}}})["spec"]["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    for empty in ("volumes", "tolerations", "nodeSelector"):
        del pod[empty]  # the server leaves out what is empty
    assert len(TIGHT.excesses(job)) == 2
    assert CLOSED.excesses(job) == []
    pod["containers"].append({"name": "plain"})
    del pod["activeDeadlineSeconds"]
    assert any("timeoutSeconds: no limit" in excess for excess in TIGHT.excesses(job))
