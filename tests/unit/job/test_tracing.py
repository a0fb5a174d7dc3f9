"""R1.3: both sides know the ids of a run's trace without talking to each other."""

from __future__ import annotations

import hashlib
import uuid

from hypothesis import given
from hypothesis import strategies as st

from policy.tracing import root_span_id, trace_id

uids = st.uuids().map(str)


def test_r1_3_the_trace_id_is_the_beginning_of_the_hash_of_the_jobs_uid() -> None:
    uid = "0b9e1d9c-6c1c-4f0a-9b52-8a0d3c1f7e42"
    assert trace_id(uid) == hashlib.sha256(uid.encode()).hexdigest()[:32]


@given(job=uids, pods=st.lists(uids, min_size=2, unique=True))
def test_r1_3_attempts_of_a_job_share_the_trace_and_no_span(job: str, pods: list[str]) -> None:
    spans = {root_span_id(job, pod) for pod in pods}
    assert len(spans) == len(pods)
    assert all(len(span) == 16 and int(span, 16) for span in spans)
    assert len(trace_id(job)) == 32
    assert int(trace_id(job), 16)


@given(job=uids, other=uids, pod=uids)
def test_two_jobs_share_nothing(job: str, other: str, pod: str) -> None:
    same = job == other
    assert (trace_id(job) == trace_id(other)) is same
    assert (root_span_id(job, pod) == root_span_id(other, pod)) is same


def test_r1_3_ratio_samplers_see_ids_that_are_spread_evenly() -> None:
    """A raw UUID has fixed bits where samplers look: a ratio of 0.4 would take none, 0.8 all."""
    ids = [trace_id(str(uuid.UUID(int=n, version=4))) for n in range(1000)]
    for ratio in (0.2, 0.4, 0.6, 0.8):
        taken = sum(int(i, 16) & (2**64 - 1) < ratio * 2**64 for i in ids)
        assert abs(taken / len(ids) - ratio) < 0.06
