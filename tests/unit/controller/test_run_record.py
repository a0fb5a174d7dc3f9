"""From Job and Pods to the record of a run."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.runs.pods import Problem, start_problem
from controller.runs.run_record import Attempt, recorded_attempt, run_record
from controller.runs.termination_report import parse_report
from policy.report import Outcome, RunReport
from policy.status import RunRecord, Trigger
from policy.tracing import trace_id
from tests.unit.controller.builders import JOB_UID, REPORT, START, job, pod, report, terminated, waiting


def recorded(*args: Any, **kwargs: Any) -> RunRecord:
    record = run_record(*args, **kwargs)
    assert record is not None
    return record


COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
OWN_TRACE = trace_id(JOB_UID)


def with_variables(made: dict[str, Any], **variables: str) -> dict[str, Any]:
    """The Job, with these in its container as well."""
    (container,) = made["spec"]["template"]["spec"]["containers"]
    container["env"] += [{"name": name, "value": value} for name, value in variables.items()]
    return made


@pytest.mark.parametrize(
    ("said", "kept"), [(OWN_TRACE, OWN_TRACE), (trace_id("another Job"), None), ("0" * 32, None), (None, None)]
)
@pytest.mark.parametrize("stands_in", [True, False])
def test_r1_3_a_report_may_name_the_trace_of_its_own_job_only(
    said: str | None, kept: str | None, stands_in: bool
) -> None:
    made = with_variables(job(ended="Complete"), **COLLECTOR)
    message = report(**({"traceID": said} if said else {}))
    assert recorded(made, [pod(state=terminated(0, message))], stands_in=stands_in).trace_id == kept


@pytest.mark.parametrize(
    ("variables", "traced"),
    [
        (COLLECTOR, True),
        ({}, False),
        (COLLECTOR | {"OTEL_SDK_DISABLED": "true"}, False),
        (COLLECTOR | {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1.0"}, True),
        (COLLECTOR | {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.0"}, False),
        (COLLECTOR | {"OTEL_TRACES_SAMPLER": "always_off"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "nonsense"}, False),
    ],
)
def test_r1_3_a_run_without_a_report_is_traced_as_its_container_was_told(
    variables: dict[str, str], traced: bool
) -> None:
    killed = [pod(state=terminated(137, "", "OOMKilled"))]
    made = with_variables(job(ended="Failed"), **variables)
    assert recorded(made, killed, stands_in=True).trace_id == (OWN_TRACE if traced else None)
    assert recorded(made, killed).trace_id is None  # nobody has written it
    assert recorded(made, [], stands_in=True).trace_id == (OWN_TRACE if traced else None)


def test_the_recorded_attempt_is_the_last_one() -> None:
    first = pod(name="a", state=terminated(1, report(outcome="Failed", reason="First")))
    last = pod(name="b", created=START + timedelta(seconds=15), state=terminated(137))
    assert recorded_attempt(job(ended="Failed"), [last, first]) == Attempt("uid-of-b", reported=False)
    assert recorded_attempt(job(ended="Failed"), [first]) == Attempt("uid-of-a", reported=True)
    assert recorded_attempt(job(ended="Failed"), []) == Attempt("", reported=False)


LATER = START + timedelta(seconds=30)


def test_r6_of_several_workers_only_the_leader_s_last_attempt_counts() -> None:
    made = job(ended="Failed", workers=3)
    first = pod(name="a", index=0, state=terminated(1, report(outcome="Failed", reason="First")))
    last = pod(
        name="b",
        index=0,
        created=START + timedelta(seconds=15),
        state=terminated(1, report(outcome="Failed", reason="Last")),
    )
    helper = pod(name="z", index=1, created=LATER, state=terminated(0, report(reason="Helper")))
    stranger = pod(name="y", created=LATER, state=terminated(0, report(reason="WithoutIndex")))
    tenth = pod(name="x", index=10, created=LATER, state=terminated(0, report(reason="Ten")))
    for pods in ([first, last, helper, stranger, tenth], [tenth, stranger, helper, last, first]):
        assert recorded(made, pods).reason == "Last"
        assert recorded_attempt(made, pods) == Attempt("uid-of-b", reported=True)
    assert recorded(made, [helper]).reason == "PodsGone"


@pytest.mark.parametrize(
    ("completed", "outcome"),
    [
        ("0", "Succeeded"),
        ("0,2", "Succeeded"),
        ("0-2", "Succeeded"),
        ("", "Failed"),
        ("1-2", "Failed"),
        ("10", "Failed"),
    ],
)
def test_r6_a_job_whose_leader_succeeded_has_not_failed_whatever_became_of_the_helpers(
    completed: str, outcome: str
) -> None:
    made = job(ended="Failed", reason="FailedIndexes", workers=11)
    made["status"]["completedIndexes"] = completed
    assert recorded(made, [pod(index=0, state=terminated(0, report()))]).outcome == outcome
    del made["spec"]["completionMode"]
    assert recorded(made, [pod(state=terminated(0, report()))]).outcome == "Failed"


def test_a_job_that_is_not_finished_has_no_record() -> None:
    assert run_record(job(), [pod(state=terminated(0, report()))]) is None


def test_r1_2_the_report_of_a_complete_job_becomes_the_record() -> None:
    record = recorded(job(ended="Complete"), [pod(state=terminated(0, report()))])
    assert record.outcome is Outcome.SUCCEEDED
    assert record.reason == "Completed"
    assert record.sessions.deleted == 3
    assert record.duration_seconds == 10.5
    assert (record.job_name, record.trigger) == ("shop-29000000", Trigger.SCHEDULE)


def test_the_report_of_the_last_attempt_counts() -> None:
    first = pod(name="a", state=terminated(1, report(outcome="Failed", reason="First")))
    last = pod(
        name="b", created=START + timedelta(seconds=15), state=terminated(1, report(outcome="Failed", reason="Last"))
    )
    foreign = pod(name="c", owner="another-job", created=START + timedelta(seconds=30), state=terminated(0, report()))
    for pods in ([first, last, foreign], [foreign, last, first]):
        assert recorded(job(ended="Failed"), pods).reason == "Last"


def test_a_pod_too_many_does_not_hide_the_report_of_the_one_that_succeeded() -> None:
    """Kubernetes may make a second Pod, for instance when the answer to its first request for one is lost."""
    reported = pod(name="a", state=terminated(0, report()))
    later = START + timedelta(seconds=1)
    for too_many in (
        pod(name="b", created=later, state={}, phase="Pending"),
        pod(name="b", created=later, state=terminated(1)),
    ):
        made = job(ended="Complete")
        record = recorded(made, [too_many, reported])
        assert (record.outcome, record.sessions.deleted) == (Outcome.SUCCEEDED, 3)
        assert recorded_attempt(made, [too_many, reported]) == Attempt("uid-of-a", reported=True)
        assert recorded(made, [too_many]).reason == "PodsGone"


@pytest.mark.parametrize("outcome", ["Degraded", "Skipped", "Failed"])
def test_a_complete_job_may_report_less_than_success(outcome: str) -> None:
    record = recorded(job(ended="Complete"), [pod(state=terminated(0, report(outcome=outcome)))])
    assert record.outcome == outcome


def test_a_failed_job_cannot_claim_success_but_its_counts_are_kept() -> None:
    record = recorded(job(ended="Failed"), [pod(state=terminated(137, report(), "OOMKilled"))])
    assert (record.outcome, record.reason) == (Outcome.FAILED, "OOMKilled")
    assert record.sessions.deleted == 3


def test_times_are_the_cluster_s_so_that_a_report_from_the_future_cannot_stay_the_last() -> None:
    hostile = report(startTime="9998-01-01T00:00:00Z", completionTime="9999-01-01T00:00:00Z", durationSeconds=10**7)
    record = recorded(job(ended="Complete", seconds=20), [pod(state=terminated(0, hostile))])
    assert record.start_time == START
    assert record.completion_time == START + timedelta(seconds=20)
    assert record.duration_seconds == 20


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, Trigger.SCHEDULE),
        ({"batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-03-01T10:50:00Z"}, Trigger.SCHEDULE),
        ({"cronjob.kubernetes.io/instantiate": "manual"}, Trigger.MANUAL),
        (
            {"cronjob.kubernetes.io/instantiate": "manual", "sessionpolicy.dev/run-requested-at": "now"},
            Trigger.REQUEST,
        ),
    ],
)
def test_what_started_the_run(annotations: dict[str, str], expected: Trigger) -> None:
    finished = job(ended="Complete", annotations=annotations)
    assert recorded(finished, [pod(state=terminated(0, report()))]).trigger is expected


@pytest.mark.parametrize(
    ("state", "status", "reason", "advice"),
    [
        (terminated(137, "", "OOMKilled"), {}, "OOMKilled", "resources.limits.memory"),
        (None, {"phase": "Failed", "reason": "Evicted"}, "Evicted", "ran short"),
        (
            terminated(143),
            {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]},
            "Disrupted",
            "priority class",
        ),
        (
            terminated(143),
            {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]},
            "Disrupted",
            "drained",
        ),
        (
            terminated(143),
            {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "SomethingNew"}]},
            "Disrupted",
            "drained, preempted or lost",
        ),
        (terminated(137), {"phase": "Failed", "reason": "DeadlineExceeded"}, "DeadlineExceeded", "timeoutSeconds"),
        (terminated(2), {}, "BadConfiguration", "exit code 2"),
        (terminated(1), {}, "NoReport", "exit code 1"),
        (terminated(137), {}, "Killed", "killed"),
        (waiting("ErrImagePull", "x"), {}, "ImagePullBackOff", "registry"),
        (waiting("InvalidImageName", "x"), {}, "InvalidImageName", "job image"),
        (
            waiting("CreateContainerConfigError", 'secret "shop-db" not found'),
            {},
            "CreateContainerConfigError",
            'secret "shop-db" not found; create the Secret',
        ),
        (
            None,
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
                ],
            },
            "Unschedulable",
            "0/3 nodes",
        ),
        (
            None,
            {
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": 'persistentvolumeclaim "logs" not found',
                    }
                ],
            },
            "Unschedulable",
            "create the PersistentVolumeClaim that spec.logs.volumeClaim names",
        ),
        (waiting("SignatureValidationFailed", "x"), {}, "ImagePullBackOff", "registry"),
        (waiting("RegistryUnavailable", "x"), {}, "ImagePullBackOff", "registry"),
        (waiting("ErrImageNeverPull", "x"), {}, "ImagePullBackOff", "registry"),
    ],
)
def test_r1_2_causes_outside_the_container_are_told_with_what_to_do(
    state: dict[str, Any] | None, status: dict[str, Any], reason: str, advice: str
) -> None:
    record = recorded(job(ended="Failed", reason="BackoffLimitExceeded"), [pod(state=state, **status)])
    assert (record.outcome, record.reason) == (Outcome.FAILED, reason)
    assert advice in record.message


def test_image_states_that_alternate_are_one_problem() -> None:
    one = start_problem(pod(state=waiting("ErrImagePull", "not found")))
    other = start_problem(pod(state=waiting("ImagePullBackOff", "Back-off pulling")))
    assert one == other is not None


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing", ""])
def test_a_container_that_is_about_to_start_has_no_problem(reason: str) -> None:
    assert start_problem(pod(state=waiting(reason), phase="Pending")) is None


def test_a_job_over_its_deadline_is_told_by_what_stalled_it() -> None:
    late = job(ended="Failed", reason="DeadlineExceeded")
    known = Problem("ImagePullBackOff", "the image cannot be pulled")
    removed = pod(state=terminated(137, "", "ContainerStatusUnknown"))
    assert recorded(late, []).reason == "DeadlineExceeded"
    assert recorded(late, [], known).reason == "ImagePullBackOff"
    assert recorded(late, [removed], known).reason == "ImagePullBackOff"
    assert recorded(late, [pod(state=terminated(1))], known).reason == "NoReport"


def test_a_pod_whose_time_ran_out_before_its_container_was_made_is_told_by_what_stalled_it() -> None:
    """As a kubelet leaves a Pod whose image it could not pull until the Pod's deadline."""
    failed = job(ended="Failed", reason="BackoffLimitExceeded")
    known = Problem("ImagePullBackOff", "the image cannot be pulled")
    stopped: dict[str, Any] = {"phase": "Failed", "reason": "DeadlineExceeded"}
    never_made = pod(state=terminated(137, "", "ContainerStatusUnknown"), **stopped)
    assert recorded(failed, [never_made], known).reason == "ImagePullBackOff"
    unknown = recorded(failed, [never_made])
    assert unknown.reason == "DeadlineExceeded"
    assert "no container was started" in unknown.message
    still_waiting = pod(state=waiting("ImagePullBackOff", "x"), **stopped)
    assert recorded(failed, [still_waiting]).reason == "ImagePullBackOff"
    mounting = pod(state=waiting("ContainerCreating"), **stopped)
    assert recorded(failed, [mounting], Problem("FailedMount", "no such claim")).reason == "FailedMount"
    had_run = recorded(failed, [pod(state=terminated(137), **stopped)], known)
    assert had_run.reason == "DeadlineExceeded"
    assert "took longer" in had_run.message
    still_running = recorded(failed, [pod(state={"running": {}}, **stopped)], known)
    assert still_running.reason == "DeadlineExceeded"


def test_pods_that_are_gone_are_said_to_be_gone() -> None:
    failed = recorded(job(ended="Failed", reason="BackoffLimitExceeded", dry_run=True), [])
    assert (failed.outcome, failed.reason) == (Outcome.FAILED, "PodsGone")
    assert (failed.policy_generation, failed.dry_run) == (7, True)
    complete = recorded(job(ended="Complete"), [])
    assert (complete.outcome, complete.reason) == (Outcome.DEGRADED, "PodsGone")


def test_a_complete_job_without_a_report_is_not_called_a_success() -> None:
    record = recorded(job(ended="Complete"), [pod(state=terminated(0))])
    assert (record.outcome, record.reason) == (Outcome.DEGRADED, "NoReport")


CANARY = "s3cr3t-canary"
HOSTILE = {
    "not JSON": f"Traceback: {CANARY}",
    "no object": json.dumps([CANARY]),
    "unknown field": report(secret=CANARY),
    "unknown outcome": report(outcome=CANARY),
    "reason that is no word": report(reason=f"{CANARY} is the password"),
    "message too long": report(message=CANARY * 100),
    "snake case": json.dumps({k: v for k, v in REPORT.items() if k != "startTime"} | {"start_time": CANARY}),
    "huge number": report(sessions={"deleted": 10**400}),
    "negative count": report(sessions={"deleted": -1}),
    "number as text": report(sessions={"deleted": "3"}),
    "not a number": report().replace("10.5", "NaN"),
    "infinite": report().replace("10.5", "1e999"),
    "no zone": report(startTime="2026-03-01T10:50:02"),
    "truncated": report()[:-1],
    "deep": "[" * 2000,
    "padded over the kubelet's limit": report() + " " * 4096,
    "job's name claimed": report(jobName="other"),
    "half a character": report(message="\ud800"),
}


@pytest.mark.parametrize("message", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_report_that_is_not_one_is_never_echoed(message: str) -> None:
    record = recorded(job(ended="Failed"), [pod(state=terminated(1, message))])
    assert record.reason == "NoReport"
    assert CANARY not in record.model_dump_json()


def test_control_characters_in_a_message_do_not_reach_the_status() -> None:
    hostile = report(message="a\u0000b\u001b[31mc\nd\u202ee")
    record = recorded(job(ended="Complete"), [pod(state=terminated(0, hostile))])
    assert record.message.isprintable()


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda b: b.decode("utf-8", "replace")))
def test_no_text_whatever_breaks_the_parser(text: str) -> None:
    assert parse_report(RunReport, text) is None


@given(
    st.dictionaries(
        st.sampled_from([*REPORT, "redis", "dryRun", "x"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=20)
        | st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    )
)
def test_whatever_parses_fits_the_status(changed: dict[str, Any]) -> None:
    parsed = parse_report(RunReport, json.dumps(REPORT | changed))
    if parsed is not None:
        assert RunReport.model_validate(parsed.to_json_object(), by_alias=True) == parsed
        record = recorded(job(ended="Complete"), [pod(state=terminated(0, json.dumps(REPORT | changed)))])
        assert RunRecord.model_validate(record.to_json_object(), by_alias=True) == record
