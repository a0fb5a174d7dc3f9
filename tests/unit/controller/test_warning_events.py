"""Kubernetes' own words on a Pod that cannot be created or cannot begin."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.runs.warning_events import container_blocked, pod_refused
from policy.report import MAX_MESSAGE_LENGTH
from tests.unit.controller.builders import START, job, pod, timestamp

QUOTA = 'Error creating: pods "shop-29000000-x7k2p" is forbidden: exceeded quota: none, requested: pods=1, used: pods=0'


def warning(message: str, reason: str = "FailedCreate", component: str = "job-controller", **fields: Any) -> Any:
    event = {
        "metadata": {"creationTimestamp": timestamp(START)},
        "reason": reason,
        "message": message,
        "source": {"component": component},
        "lastTimestamp": timestamp(START + timedelta(seconds=5)),
    }
    return event | fields


@pytest.mark.parametrize(
    ("words", "reason", "said"),
    [
        (QUOTA, "QuotaExceeded", "exceeded quota: none, requested: pods=1, used: pods=0; raise"),
        ('Error creating: pods "a-b" is forbidden: failed quota: q: must specify x', "QuotaExceeded", "must specify x"),
        (
            'Error creating: pods "a-b" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot',
            "PodSecurity",
            "runAsNonRoot",
        ),
        (
            'Error creating: admission webhook "x.example" denied the request: no such registry',
            "AdmissionDenied",
            "no such registry",
        ),
        (
            "Error creating: pods \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request",
            "AdmissionDenied",
            "denied request",
        ),
        (
            'Error creating: pods "a-b" is forbidden: no PriorityClass with name high was found',
            "PodNotCreated",
            "no PriorityClass with name high was found",
        ),
        (
            'Error creating: pods "a-b" is forbidden: maximum memory usage per Container is 50Mi, but limit is 200Mi.',
            "PodNotCreated",
            "limit is 200Mi; remove the cause; see kubectl describe job shop-29000000",
        ),
    ],
)
def test_r1_2_the_server_s_words_and_what_to_do(words: str, reason: str, said: str) -> None:
    found = pod_refused(job(), [warning(words)], START)
    assert found is not None
    assert found.reason == reason
    assert said in found.message
    assert "Job shop-29000000: " in found.message


def test_the_words_do_not_change_with_every_attempt() -> None:
    again = QUOTA.replace("x7k2p", "9qqrz")
    assert pod_refused(job(), [warning(QUOTA)], START) == pod_refused(job(), [warning(again)], START)


def test_the_newest_words_count() -> None:
    later = warning("Error creating: now this", lastTimestamp=timestamp(START + timedelta(minutes=1)))
    series = warning("Error creating: and now", series={"lastObservedTime": timestamp(START + timedelta(minutes=2))})
    for events, said in (([later, warning(QUOTA)], "now this"), ([series, later], "and now")):
        found = pod_refused(job(), events, START)
        assert found is not None
        assert said in found.message


@pytest.mark.parametrize(
    "event",
    [
        warning(QUOTA, component="somebody"),
        warning(QUOTA, reason="BackoffLimitExceeded"),
        warning(QUOTA, source=None),
        warning(QUOTA, lastTimestamp=timestamp(START - timedelta(seconds=1))),
    ],
    ids=["another component", "another reason", "no component", "before the last Pod"],
)
def test_other_events_say_nothing_of_it(event: Any) -> None:
    assert pod_refused(job(), [event], START) is None


def test_the_newer_kind_of_event_counts_as_well() -> None:
    event = warning(QUOTA, source={}, reportingComponent="job-controller", lastTimestamp=None)
    assert pod_refused(job(), [event | {"eventTime": timestamp(START)}], START) is not None


@given(st.text(max_size=3000))
def test_whatever_an_event_says_the_message_is_one_printable_line_of_bounded_length(words: str) -> None:
    found = pod_refused(job(), [warning(words)], START)
    assert found is not None
    assert found.message.isprintable()
    assert len(found.message) <= MAX_MESSAGE_LENGTH


def test_a_volume_that_cannot_be_mounted_is_told() -> None:
    mount = warning('MountVolume.SetUp failed for volume "logs": not there', "FailedMount", "kubelet")
    found = container_blocked(
        pod(), [mount, warning("x", "BackOff", "kubelet"), warning("y", "FailedMount", "me")], START
    )
    assert found is not None
    assert found.reason == "FailedMount"
    assert 'volume "logs": not there' in found.message
    assert "Pod shop-29000000-abcde" in found.message
    assert container_blocked(pod(), [], START) is None
