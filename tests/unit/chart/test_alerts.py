"""When each alert fires and when it does not, as Prometheus itself judges the rules.

Each case is a healthy policy, or healthy controllers, with something changed. It says which alerts fire, and that no
other does.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart import CHART

ALERTS = CHART / "files" / "alerts.yaml"
PREFIX = "SessionPolicy"

HOUR = 3600
# Cases last four hours, a sample a minute; the policy runs each hour and last did so ten minutes before the beginning.
MINUTES = 240
EVER = f"x{MINUTES}"

Series = Mapping[str, str]

POLICY: Series = {
    "ready": "1",
    "running": "0",
    "suspended": "0",
    "dry_run": "0",
    "schedule_interval_seconds": "3600",
    "job_timeout_seconds": "600",
    "overdue_schedules": "0",
    "consecutive_failures": "0",
    "backlog_growing_runs": "0",
    "last_run_timestamp_seconds": "1+60",  # as if it ran each minute: it is never late
    "last_success_timestamp_seconds": "1+60",
    "last_run_duration_seconds": "12",
    "last_run_dry_run": "0",
    'last_run_outcome{outcome="Succeeded"}': "1",
    'last_run_outcome{outcome="Failed"}': "0",
    'last_run_reason{reason="Completed"}': "1",
    'last_run_sessions{state="deleted"}': "100",
    'last_run_sessions{state="failed"}': "0",
    'last_run_sessions{state="remaining"}': "0",
    'last_run_sessions{state="abnormal"}': "0",
    "active_sessions": "5000",
    "redis_memory_bytes": "1073741824",
    "redis_hit_ratio": "0.95",
    "run_duration_threshold_seconds": "600",
    "failed_deletions_threshold_ratio": "0.05",
    "active_sessions_threshold": "5000",
    "redis_memory_threshold_bytes": "1073741824",
    "redis_hit_threshold_ratio": "0.95",
}
CONTROLLERS: Series = {
    'leader{pod="a"}': "1",
    'leader{pod="b"}': "0",
    'reconcile_total{pod="a",result="success"}': "0+5",
    'reconcile_total{pod="a",result="error"}': "3",
    'queue_wait_seconds_bucket{pod="a",le="60"}': "0+5",
    'queue_wait_seconds_bucket{pod="a",le="120"}': "0+5",
    'queue_wait_seconds_bucket{pod="a",le="+Inf"}': "0+5",
}


def series(prefix: str, labels: str, values: Series) -> dict[str, str]:
    """Whole series: a value without an end lasts for the whole case."""
    found = {}
    for name, value in values.items():
        metric, _, own = name.partition("{")
        everything = ",".join(part for part in (labels, own.rstrip("}")) if part)
        found[f"{prefix}_{metric}{{{everything}}}"] = value if "x" in value or " " in value else value + EVER
    return found


def of_policy(changed: Series, pod: str = "a", name: str = "shop") -> dict[str, str]:
    return series("session_policy", f'namespace="web",policy="{name}",pod="{pod}"', {**POLICY, **changed})


def of_controllers(changed: Series, job: str = "ops/operator") -> dict[str, str]:
    labels = f'namespace="{job.partition("/")[0]}",job="{job}"'
    return series("session_policy_controller", labels, {**CONTROLLERS, **changed})


@pytest.fixture(scope="session")
def promtool() -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool on PATH: what Prometheus makes of the alert rules is not tested")
    return program


Check = Callable[[Mapping[str, str], Mapping[str, set[str]]], None]


@pytest.fixture
def check(promtool: str, tmp_path: Path) -> Check:
    """Asserts which alerts fire at which times, of all there are."""

    def judge(given: Mapping[str, str], expected: Mapping[str, set[str]]) -> None:
        shutil.copy(ALERTS, tmp_path / "alerts.yaml")
        case = {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in given.items()],
            "promql_expr_test": [
                {
                    "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": at,
                    "exp_samples": [{"labels": f'{{alertname="{PREFIX}{name}"}}', "value": 1} for name in fire],
                }
                for at, fire in expected.items()
            ],
        }
        file = {"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": [case]}
        (tmp_path / "case.yaml").write_text(yaml.safe_dump(file))
        result = subprocess.run(
            [promtool, "test", "rules", "case.yaml"], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert result.returncode == 0, result.stdout + result.stderr

    return judge


def test_r5_all_is_well(check: Check) -> None:
    check(of_policy({}) | of_controllers({}), {"3h": set()})


def reason(name: str, outcome: str = "Failed") -> dict[str, str]:
    """The last run ended so."""
    ends = {f'last_run_outcome{{outcome="{o}"}}': str(int(o == outcome)) for o in ("Succeeded", "Degraded", "Failed")}
    return {**ends, f'last_run_reason{{reason="{name}"}}': "1", 'last_run_reason{reason="Completed"}': "_x240"}


FIRING: list[tuple[str, dict[str, str]]] = [
    ("RunFailed", reason("DatabaseUnavailable")),
    ("RunsFailing", {"consecutive_failures": "3"}),
    ("SchedulesMissed", {"overdue_schedules": "1"}),
    ("RunNearTimeLimit", {"last_run_duration_seconds": "481"}),
    ("RunNearTimeLimit", {"last_run_duration_seconds": "9", **reason("DeadlineReached", "Degraded")}),
    ("RunTooLong", {"last_run_duration_seconds": "601", "job_timeout_seconds": "3600"}),
    ("RunTooLong", {"last_run_duration_seconds": "61", "run_duration_threshold_seconds": "60"}),
    ("DeletionsFailing", {'last_run_sessions{state="failed"}': "6", 'last_run_sessions{state="deleted"}': "94"}),
    ("DeletionsFailing", {'last_run_sessions{state="failed"}': "1", "failed_deletions_threshold_ratio": "0"}),
    ("BacklogGrowing", {"backlog_growing_runs": "2"}),
    ("SafetyLimitHit", reason("DeletionLimitReached", "Degraded")),
    ("ActiveSessionsHigh", {"active_sessions": "5001"}),
    ("ActiveSessionsHigh", {"active_sessions": "11", "active_sessions_threshold": "10"}),
    ("CreationRateHigh", {'last_run_alerts{reason="CreationRateHigh"}': "900"}),
    ("AbnormalSessions", {'last_run_sessions{state="abnormal"}': "1"}),
    ("RedisMemoryHigh", {"redis_memory_bytes": "1073741825"}),
    ("RedisHitRatioLow", {"redis_hit_ratio": "0.9499"}),
    ("NotReady", {"ready": "0"}),
    ("Stalled", {'stalled{reason="ImagePullBackOff"}': "1"}),
]
QUIET: list[tuple[str, dict[str, str]]] = [
    ("two failures may pass", {"consecutive_failures": "2"}),
    ("a run that had time left", {"last_run_duration_seconds": "480"}),
    ("a run as long as it may be", {"last_run_duration_seconds": "600", "job_timeout_seconds": "3600"}),
    ("5 % failed", {'last_run_sessions{state="failed"}': "5", 'last_run_sessions{state="deleted"}': "95"}),
    ("nothing was there to delete", {'last_run_sessions{state="deleted"}': "0"}),
    ("the backlog grew once", {"backlog_growing_runs": "1"}),
    ("any number of sessions", {"active_sessions": "9999999", "active_sessions_threshold": "_x240"}),
    ("no threshold for Redis", {"redis_memory_bytes": "9999999999", "redis_memory_threshold_bytes": "_x240"}),
    ("other alerts of the run", {'last_run_alerts{reason="RiskySettings"}': "3"}),
    ("a skipped run", reason("LockHeld", "Skipped")),
]


@pytest.mark.parametrize(("alert", "changed"), FIRING, ids=[f"{a}-{n}" for n, (a, _) in enumerate(FIRING)])
class TestOfOnePolicy:
    """Each alert on a policy: for it, for no other, and not when it does not matter."""

    def test_r5_it_fires(self, check: Check, alert: str, changed: Series) -> None:
        check(of_policy(changed) | of_controllers({}), {"1h": {alert}})

    @pytest.mark.representative(alert=["RunFailed", "NotReady"])
    def test_the_policy_is_deleted(self, check: Check, alert: str, changed: Series) -> None:
        values = {**POLICY, **changed}
        gone = series(
            "session_policy",
            'namespace="web",policy="shop",pod="a"',
            {k: re.sub(r"(x\d+)?$", "x60", v, count=1) + " stale" for k, v in values.items()},
        )
        check(gone | of_controllers({}), {"50m": {alert}, "70m": set()})

    @pytest.mark.representative(alert=["RunFailed", "NotReady"])
    def test_the_policy_is_suspended(self, check: Check, alert: str, changed: Series) -> None:
        still = {alert} & {"NotReady", "Stalled"}  # it could not be resumed
        check(of_policy({**changed, "suspended": "1"}) | of_controllers({}), {"1h": still})

    @pytest.mark.representative(alert=["RunFailed", "NotReady"])
    def test_the_leader_changes(self, check: Check, alert: str, changed: Series) -> None:
        """Pod b takes over; for two minutes nobody shows the policy."""

        def part(head: str, tail: str) -> dict[str, str]:
            return {k: head + re.sub(r"(x\d+)?$", tail, v, count=1) for k, v in {**POLICY, **changed}.items()}

        before = of_policy(part("", "x60 stale"), "a")
        after = of_policy(part("_x62 ", "x170"), "b")
        leaders = {'leader{pod="a"}': "1x60 0x180", 'leader{pod="b"}': "0x62 1x178"}
        waits_anew = {"64m": {alert}} if alert not in ("NotReady", "Stalled") else {}
        expected = {at: {alert} for at in ("60m", "61m", "62m", "3h")} | waits_anew
        check(before | after | of_controllers(leaders), expected)


@pytest.mark.parametrize("changed", [c for _, c in QUIET], ids=[name for name, _ in QUIET])
def test_no_alert_for(check: Check, changed: Series) -> None:
    check(of_policy(changed) | of_controllers({}), {"1h": set()})


@pytest.mark.parametrize(
    ("alert", "changed", "quiet_until", "fires_at"),
    [
        ("NotReady", {"ready": "0"}, "14m", "16m"),
        ("Stalled", {'stalled{reason="Unschedulable"}': "1"}, "4m", "6m"),
    ],
)
def test_some_wait_for_what_ends_by_itself(
    check: Check, alert: str, changed: Series, quiet_until: str, fires_at: str
) -> None:
    check(of_policy(changed) | of_controllers({}), {quiet_until: set(), fires_at: {alert}})


def test_a_refused_run_is_a_failed_one_too(check: Check) -> None:
    given = of_policy(reason("SafetyLimitExceeded")) | of_controllers({})
    check(given, {"1h": {"RunFailed", "SafetyLimitHit"}})


# --- no success for three schedules ----------------------------------------------------------------------------------

# Runs go on, and none succeeds: the last success was at the beginning.
FRUITLESS = {"last_success_timestamp_seconds": "1"}


def test_no_success_for_three_of_its_own_schedules(check: Check) -> None:
    # Three hours and the ten minutes that a run may take are over after 190 minutes; then it waits for five more.
    check(of_policy(FRUITLESS) | of_controllers({}), {"195m": set(), "196m": {"NotSucceeding"}})


def test_no_success_is_judged_by_each_policy_s_schedule(check: Check) -> None:
    often = {**FRUITLESS, "schedule_interval_seconds": "300", "job_timeout_seconds": "60"}
    seldom = {**FRUITLESS, "schedule_interval_seconds": "86400"}
    check(of_policy(often) | of_controllers({}), {"21m": set(), "22m": {"NotSucceeding"}})
    check(of_policy(seldom) | of_controllers({}), {"4h": set()})


@pytest.mark.parametrize(
    ("changed", "fire"),
    [
        ({}, {"NotSucceeding"}),
        ({"suspended": "1"}, set()),
        ({"dry_run": "1", "last_run_dry_run": "1"}, set()),
        ({"dry_run": "1"}, set()),  # it has only just begun to look
        ({"last_run_dry_run": "1"}, set()),  # it has only just ceased to
        ({"last_success_timestamp_seconds": "_x240"}, set()),  # it is new; RunsFailing and the like watch over it
        # Resumed after days: no run has come since, none was missed.
        ({"suspended": "1x230 0x10", "last_run_timestamp_seconds": "1"}, set()),
        # No run comes at all.
        ({"last_run_timestamp_seconds": "1", "overdue_schedules": "3"}, {"NotSucceeding", "SchedulesMissed"}),
    ],
)
def test_no_success_where_one_is_to_be_expected(check: Check, changed: Series, fire: set[str]) -> None:
    check(of_policy({**FRUITLESS, **changed}) | of_controllers({}), {"239m": fire})


def test_a_restart_of_the_controller_does_not_begin_the_wait_anew(check: Check) -> None:
    before = of_policy({name: "1x100 stale" if name in FRUITLESS else v for name, v in POLICY.items()})
    after = of_policy({**FRUITLESS}, pod="c")
    check(before | after | of_controllers({}), {"200m": {"NotSucceeding"}})


# --- controllers -----------------------------------------------------------------------------------------------------

CONTROLLER_CASES: list[tuple[str, dict[str, str], str, set[str]]] = [
    ("none is scraped", dict.fromkeys(CONTROLLERS, "_x240"), "10m", {"ControllerAbsent"}),
    ("nobody leads", {'leader{pod="a"}': "0"}, "10m", {"ControllerNoLeader"}),
    ("nobody leads for a moment", {'leader{pod="a"}': "1x60 0x3 1x170"}, "63m", set()),
    (
        "a leader ends, another takes over",
        {'leader{pod="a"}': "1x60 stale", 'leader{pod="b"}': "0x61 1x170"},
        "2h",
        set(),
    ),
    ("two lead", {'leader{pod="b"}': "1"}, "10m", {"ControllerTwoLeaders"}),
    ("two lead as one takes over", {'leader{pod="a"}': "1x60 0x180", 'leader{pod="b"}': "0x59 1x180"}, "61m", set()),
    ("errors", {'reconcile_total{pod="a",result="error"}': "0+1"}, "40m", {"ReconcileErrors"}),
    ("an API server away", {'reconcile_total{pod="a",result="unavailable"}': "0+1"}, "40m", {"ReconcileErrors"}),
    ("conflicts", {'reconcile_total{pod="a",result="conflict"}': "0+1"}, "40m", set()),
    ("errors for ten minutes", {'reconcile_total{pod="a",result="error"}': "0x30 0+1x10 10x200"}, "44m", set()),
    ("a counter that begins anew", {'reconcile_total{pod="a",result="error"}': "3x60 0x180"}, "90m", set()),
    ("a long queue", {'queue_wait_seconds_bucket{pod="a",le="60"}': "0"}, "40m", {"ControllerSlow"}),
]


@pytest.mark.parametrize(
    ("changed", "at", "fire"), [case[1:] for case in CONTROLLER_CASES], ids=[case[0] for case in CONTROLLER_CASES]
)
def test_the_controllers(check: Check, changed: Series, at: str, fire: set[str]) -> None:
    check(of_controllers(changed), {at: fire})


def test_the_leader_of_another_release_is_no_second_one(check: Check) -> None:
    check(of_controllers({}) | of_controllers({}, "team/operator"), {"10m": set()})


def test_a_release_without_a_leader_is_not_hidden_by_another(check: Check) -> None:
    leaderless = of_controllers({'leader{pod="a"}': "0"}, "team/operator")
    check(of_controllers({}) | leaderless, {"10m": {"ControllerNoLeader"}})


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    fired = {alert for alert, _ in FIRING} | {a for *_, fire in CONTROLLER_CASES for a in fire} | {"NotSucceeding"}
    assert {rule["alert"] for rule in rules} == {PREFIX + name for name in fired}


# --- what they say ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alert", "changed", "labels", "summary", "description"),
    [
        (
            "DeletionsFailing",
            {'last_run_sessions{state="failed"}': "10", 'last_run_sessions{state="deleted"}': "90"},
            {},
            "SessionPolicy web/shop could not delete many sessions",
            "10% of the deletions of the last run failed; the next run tries them again.",
        ),
        (
            "RedisMemoryHigh",
            {"redis_memory_bytes": "2147483648"},
            {},
            "Redis of SessionPolicy web/shop uses much memory",
            "2GiB are in use, more than spec.alerts.thresholds.redisMemoryMegabytes.",
        ),
        (
            "RunTooLong",
            {"last_run_duration_seconds": "615", "job_timeout_seconds": "3600"},
            {},
            "The last run of SessionPolicy web/shop took too long",
            "It took 10m 15s, more than spec.alerts.thresholds.durationSeconds.",
        ),
        (
            "Stalled",
            {'stalled{reason="ImagePullBackOff"}': "1"},
            {"reason": "ImagePullBackOff"},
            "SessionPolicy web/shop is stalled (ImagePullBackOff)",
            "It cannot go on by itself. `kubectl describe spol -n web shop` tells what to do.",
        ),
    ],
)
def test_an_alert_says_where_how_much_and_where_to_read_on(
    promtool: str,
    tmp_path: Path,
    alert: str,
    changed: Series,
    labels: dict[str, str],
    summary: str,
    description: str,
) -> None:
    shutil.copy(ALERTS, tmp_path / "alerts.yaml")
    fired: dict[str, Any] = {
        "exp_labels": {
            "severity": "warning",
            "audience": "operations",
            "namespace": "web",
            "policy": "shop",
            **labels,
        },
        "exp_annotations": {
            "summary": summary,
            "description": description,
        },
    }
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in of_policy(changed).items()],
        "alert_rule_test": [{"alertname": PREFIX + alert, "eval_time": "30m", "exp_alerts": [fired]}],
    }
    file = {"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(file))
    result = subprocess.run(
        [promtool, "test", "rules", "case.yaml"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 0, result.stdout + result.stderr
