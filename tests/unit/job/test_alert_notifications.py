"""R2: what is worth an alert, and when it is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.alerts.alert_state import EMPTY_STATE, AlertState
from job.alerts.message import AlertSource, compose_message
from job.alerts.notifications import Notification, due_notifications, is_complete, updated_state
from job.alerts.problems import Audience, Problem, problems, report_alerts, too_many_failed
from policy.alerts import Thresholds
from policy.report import MAX_ALERTS, Outcome, RunReport, SessionCounts

NOW = datetime(2026, 3, 1, 10, 50, tzinfo=UTC)
DAY = 86400
DEFAULT = Thresholds()


def report(
    outcome: Outcome = Outcome.SUCCEEDED, reason: str = "Completed", seconds: float = 5, **counts: int
) -> RunReport:
    return RunReport(
        outcome=outcome,
        reason=reason,
        message="told",
        start_time=NOW,
        completion_time=NOW,
        duration_seconds=seconds,
        sessions=SessionCounts(**counts),
    )


def reasons(made: RunReport, thresholds: Thresholds = DEFAULT, *findings: Problem) -> list[str]:
    return [problem.reason for problem in problems(made, thresholds, findings)]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (report(), []),
        (report(seconds=600), []),
        (report(seconds=600.1), ["RunTooLong"]),
        (report(Outcome.DEGRADED, "DeadlineReached", seconds=540, remaining=7), ["RunTooLong"]),
        (report(Outcome.DEGRADED, "Interrupted"), []),
        (report(deleted=95, failed=5), []),
        (report(Outcome.DEGRADED, "DeletionsFailed", deleted=94, failed=6), ["DeletionsFailed"]),
        (report(failed=1), ["DeletionsFailed"]),
        (report(active=5000), []),
        (report(active=5001), ["TooManyActiveSessions"]),
        (report(abnormal=2), ["AbnormalSessions"]),
        (report(Outcome.FAILED, "RedisUnavailable"), ["RedisUnavailable"]),
        (report(Outcome.FAILED, "DatabaseUnavailable"), ["DatabaseUnavailable"]),
        (report(Outcome.SKIPPED, "LockHeld"), []),
    ],
)
def test_r2_alert_thresholds(made: RunReport, expected: list[str]) -> None:
    assert reasons(made) == expected


def test_r2_zero_active_sessions_means_any_number() -> None:
    assert reasons(report(active=10**6), Thresholds(active_sessions=0)) == []


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 100))
def test_r2_more_than_the_share_of_deletions_failed(deleted: int, failed: int, percent: int) -> None:
    attempted = deleted + failed
    expected = attempted > 0 and failed / attempted > percent / 100
    counts = SessionCounts(deleted=deleted, failed=failed)
    assert too_many_failed(counts, Thresholds(failed_percent=percent)) is expected


def test_r2_abnormal_sessions_go_to_security_and_failures_to_operations() -> None:
    made = report(Outcome.FAILED, "RedisUnavailable", abnormal=1)
    assert {p.reason: p.audience for p in problems(made, DEFAULT)} == {
        "RedisUnavailable": Audience.OPERATIONS,
        "AbnormalSessions": Audience.SECURITY,
    }


def test_findings_by_rule_stand_in_for_the_sum_of_them() -> None:
    travel = Problem("ImpossibleTravel", Audience.SECURITY, "2 sessions", 2)
    assert reasons(report(abnormal=2), DEFAULT, travel) == ["ImpossibleTravel"]


def test_the_report_holds_the_gravest_and_never_too_many() -> None:
    many = [Problem(f"Rule{n}", Audience.SECURITY, "x", n) for n in range(20)]
    alerts = report_alerts(problems(report(Outcome.FAILED, "ClockSkew"), DEFAULT, many))
    assert len(alerts) == MAX_ALERTS
    assert alerts[0].reason == "ClockSkew"


# --- when ------------------------------------------------------------------------------------------------------------


class Story:
    """Runs an hour apart, each with its problems; everybody can be reached."""

    def __init__(self, repeat: int = DAY) -> None:
        self.state, self.now, self.repeat = EMPTY_STATE, NOW, repeat

    def run(self, *found: Problem, complete: bool = True, reachable: bool = True, hours: float = 1) -> list[str]:
        told = due_notifications(found, self.state, self.now, self.repeat, complete=complete)
        reached = {n.problem.reason for n in told} if reachable else set[str]()
        self.state = updated_state(found, self.state, reached, self.now, self.repeat, complete=complete)
        # What the next run reads has been through a store.
        self.state = AlertState.from_text(self.state.to_text()) or EMPTY_STATE
        self.now += timedelta(hours=hours)
        return [n.problem.reason + (" resolved" if n.resolved else "") for n in told]


DOWN = Problem("RedisUnavailable", Audience.OPERATIONS, "Redis cannot be reached", grows=False)


def failed(count: int) -> Problem:
    return Problem("DeletionsFailed", Audience.OPERATIONS, "x", count)


def test_r2_a_standing_problem_is_told_once_and_again_after_a_day() -> None:
    story = Story()
    told = [story.run(DOWN) for _ in range(26)]
    assert told == [["RedisUnavailable"]] + [[]] * 23 + [["RedisUnavailable"]] + [[]]


def test_repeat_after_nothing_tells_it_with_every_run() -> None:
    story = Story(repeat=0)
    assert [story.run(DOWN) for _ in range(3)] == [["RedisUnavailable"]] * 3


def test_a_problem_that_doubles_is_told_at_once() -> None:
    story = Story()
    assert [story.run(failed(n)) for n in (10, 15, 19, 20, 39, 40)] == [
        ["DeletionsFailed"], [], [], ["DeletionsFailed"], [], ["DeletionsFailed"],
    ]  # fmt: skip


def test_what_reached_nobody_is_told_by_the_next_run() -> None:
    story = Story()
    assert story.run(DOWN, reachable=False) == ["RedisUnavailable"]
    assert story.run(DOWN) == ["RedisUnavailable"]
    assert story.run(DOWN) == []


def test_a_problem_that_comes_and_goes_does_not_shout() -> None:
    story = Story()
    told = [line for _ in range(10) for line in (*story.run(DOWN), *story.run())]
    assert told == ["RedisUnavailable"]


def test_a_problem_that_stays_away_is_resolved_once_and_new_when_it_returns() -> None:
    story = Story()
    story.run(DOWN)
    quiet = [line for _ in range(20) for line in story.run()]
    assert quiet == ["RedisUnavailable resolved"]
    assert story.run(DOWN) == ["RedisUnavailable"]


def test_what_nobody_was_told_of_is_not_resolved_either() -> None:
    story = Story()
    story.run(DOWN, reachable=False)
    assert [line for _ in range(20) for line in story.run()] == []


def test_security_is_never_told_that_an_incident_is_over() -> None:
    story = Story()
    story.run(Problem("ImpossibleTravel", Audience.SECURITY, "x", 3))
    assert [line for _ in range(40) for line in story.run()] == []


def test_a_run_that_saw_little_resolves_nothing() -> None:
    story = Story()
    story.run(failed(9))
    assert [line for _ in range(20) for line in story.run(DOWN, complete=False)] == ["RedisUnavailable"]
    assert "DeletionsFailed" in story.state.problems


@pytest.mark.parametrize(
    ("outcome", "reason", "complete"),
    [
        (Outcome.SUCCEEDED, "Completed", True),
        (Outcome.DEGRADED, "DeletionsFailed", True),
        (Outcome.DEGRADED, "DeadlineReached", False),
        (Outcome.FAILED, "RunFailed", False),
        (Outcome.SKIPPED, "LockHeld", False),
    ],
)
def test_only_a_run_that_looked_at_everything_ends_problems(outcome: Outcome, reason: str, complete: bool) -> None:
    assert is_complete(report(outcome, reason)) is complete


def test_since_when_is_the_first_run_that_met_it() -> None:
    story = Story()
    story.run(DOWN)
    later = due_notifications([DOWN], story.state, NOW + timedelta(days=2), DAY, complete=True)
    assert [n.since for n in later] == [NOW]


def test_a_clock_that_was_set_back_silences_nothing() -> None:
    story = Story()
    story.run(DOWN)
    assert due_notifications([DOWN], story.state, NOW - timedelta(days=400), DAY, complete=True)


@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), max_size=3), max_size=60))
def test_r2_no_reason_is_told_more_often_than_the_policy_says_unless_it_doubled(
    runs: list[list[tuple[str, int]]],
) -> None:
    story, last = Story(), dict[str, tuple[datetime, int]]()
    for met in runs:
        now, counts = story.now, dict(met)
        told = story.run(*(Problem(r, Audience.OPERATIONS, "x", n) for r, n in counts.items()))
        for reason, count in counts.items():
            if reason in told:
                if reason in last and now - last[reason][0] < timedelta(seconds=DAY):
                    assert count >= 2 * max(1, last[reason][1])
                last[reason] = now, count
            else:
                assert reason in last  # nothing is new and untold
        for reason in [line.removesuffix(" resolved") for line in told if line.endswith(" resolved")]:
            del last[reason]


def test_memory_that_cannot_be_read_is_no_memory() -> None:
    for text in (None, "", "{", b"\xff", '{"updated_at": "yesterday"}', '{"problems": {"a": 1}}'):
        assert AlertState.from_text(text) is None


# --- words -----------------------------------------------------------------------------------------------------------

PLACE = AlertSource("shop", "web", "north", "0af7651916cd43dd8448eb211c80319c")


def notice(**changed: Any) -> Notification:
    return Notification(**{"problem": failed(9), "since": NOW, **changed})


def test_r2_a_message_says_what_where_how_many_since_when_and_links_the_runbook() -> None:
    problem = Problem("DeletionsFailed", Audience.OPERATIONS, "9 of 100 deletions failed, more than 5 %", 9)
    message = compose_message([notice(problem=problem)], PLACE, "https://wiki.example/runbooks/")
    assert message.title == "Session policy web/shop in north: DeletionsFailed"
    for part in (
        "9 of 100 deletions failed",
        "2026-03-01 10:50 UTC",
        "Policy: shop",
        "Namespace: web",
        "Cluster: north",
        "Trace: 0af7651916cd43dd8448eb211c80319c",
    ):
        assert part in message.body
    assert "https://wiki.example/runbooks/DeletionsFailed" in message.body


def test_several_problems_are_one_message() -> None:
    message = compose_message([notice(resolved=True, problem=DOWN), notice()], AlertSource("shop", "web"))
    assert message.title == "Session policy web/shop: DeletionsFailed"
    assert "RedisUnavailable is over" in message.body
    assert "Runbook: docs/runbooks/DeletionsFailed.md in the repository of session-policy-operator" in message.body
    assert "Cluster" not in message.body
    assert "Trace" not in message.body
    assert not message.resolved
    assert compose_message([notice(resolved=True)], PLACE).title.endswith("DeletionsFailed resolved")
