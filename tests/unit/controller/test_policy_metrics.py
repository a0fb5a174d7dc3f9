"""What Prometheus is told of policies, and that it can read it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from controller.metrics.controller_metrics import Metrics, Result
from tests.unit.controller.builders import REPORT, policy_resource

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

STATUS: dict[str, Any] = {
    "conditions": [
        {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": "",
            "lastTransitionTime": "2026-03-01T10:50:00Z",
            "observedGeneration": 7,
        }
        for kind, reason in (("Ready", "CronJobApplied"), ("Stalled", "ImagePullBackOff"), ("Running", "JobActive"))
    ],
    "nextScheduleTime": "2026-03-01T11:50:00Z",
    "lastSuccessTime": "2026-03-01T09:50:12Z",
    "consecutiveFailures": 2,
    "missedSchedules": 4,
    "lastRun": REPORT
    | {"jobName": "shop-1", "jobUID": "u", "trigger": "Schedule", "outcome": "Failed"}
    | {"redis": {"sessions": 8, "deleted": 3, "orphaned": 1, "missing": 2, "indexEntriesRemoved": 4, "ttlAdded": 5}}
    | {"alerts": [{"reason": "RedisMemoryHigh", "count": 2000}]}
    | {"reason": "OOMKilled"}
    | {
        "vitals": {
            "redisMemoryBytes": 2097152000,
            "redisHitRatio": 0.875,
            "createdPerHour": 7200.0,
            "averageSessionSeconds": 1234,
        }
    },
    "history": [],
    "totals": {"runsSucceeded": 40, "runsFailed": 2, "deletedSessions": 123456, "missedSchedules": 3},
}


SECRET = {"secretKeyRef": {"name": "stores", "key": "url"}}
STORES = {"database": {"urlFrom": SECRET}, "redis": {"urlFrom": SECRET}}


def full_policy() -> dict[str, Any]:
    spec: dict[str, Any] = {"schedule": "*/5 9-17 * * 1-5", "job": {"timeoutSeconds": 300}, "stores": STORES}
    return policy_resource(**spec) | {"status": STATUS}


def exposed(metrics: Metrics, accept: str = "") -> str:
    encode, _ = choose_encoder(accept)
    return encode(metrics.registry).decode()


def samples(metrics: Metrics) -> dict[str, float]:
    """Each sample of a policy by its name and its labels, without those that all have."""
    found = {}
    for family in text_string_to_metric_families(exposed(metrics)):
        for sample in family.samples:
            own = {k: v for k, v in sample.labels.items() if k not in ("namespace", "policy")}
            if "policy" in sample.labels:
                assert (sample.labels["namespace"], sample.labels["policy"]) == ("web", "shop")
                found[" ".join([sample.name.removeprefix("session_policy_"), *own.values()])] = sample.value
    return found


def test_r5_every_figure_of_a_policy() -> None:
    metrics = Metrics()
    metrics.policies.upsert(full_policy())
    assert samples(metrics) == {
        "ready": 1,
        "running": 1,
        "suspended": 0,
        "dry_run": 0,
        "overdue_schedules": 4,
        "stalled ImagePullBackOff": 1,
        "schedule_interval_seconds": (2 * 24 + 15) * 3600 + 5 * 60,
        "next_schedule_timestamp_seconds": 1772365800,
        "job_timeout_seconds": 300,
        "last_run_timestamp_seconds": 1772362212,
        "last_success_timestamp_seconds": 1772358612,
        "last_run_duration_seconds": 10.5,
        "last_run_outcome Succeeded": 0,
        "last_run_outcome Degraded": 0,
        "last_run_outcome Skipped": 0,
        "last_run_outcome Failed": 1,
        "last_run_sessions expired": 3,
        "last_run_sessions evicted": 0,
        "last_run_sessions duplicate": 0,
        "last_run_sessions abnormal": 0,
        "last_run_sessions deleted": 3,
        "last_run_sessions failed": 0,
        "last_run_sessions remaining": 0,
        "last_run_dry_run": 0,
        "last_run_reason OOMKilled": 1,
        "last_run_alerts RedisMemoryHigh": 2000,
        "active_sessions": 5,
        "active_sessions_threshold": 5000,
        "failed_deletions_threshold_ratio": 0.05,
        "run_duration_threshold_seconds": 600,
        "created_sessions_per_second": 2,
        "session_duration_average_seconds": 1234,
        "backlog_growing_runs": 0,
        "consecutive_failures": 2,
        "redis_memory_bytes": 2097152000,
        "redis_memory_threshold_bytes": 2**30,
        "redis_hit_ratio": 0.875,
        "redis_hit_threshold_ratio": 0.95,
        "redis_sessions": 8,
        "redis_deleted_sessions": 3,
        "redis_orphaned_sessions": 1,
        "redis_missing_sessions": 2,
        "redis_removed_index_entries": 4,
        "redis_added_ttls": 5,
        "runs_total Succeeded": 40,
        "runs_total Degraded": 0,
        "runs_total Failed": 2,
        "runs_total Skipped": 0,
        "deleted_sessions_total": 123456,
        "missed_schedules_total": 3,
    }


def test_what_is_not_known_has_no_sample() -> None:
    metrics = Metrics()
    metrics.policies.upsert(policy_resource())
    found = samples(metrics)
    assert found["ready"] == 0
    assert found["schedule_interval_seconds"] == 3600
    unknown = ("last_", "next_", "active_sessions", "redis_", "stalled", "created_", "session_")
    assert {name for name in found if name.startswith(unknown)} == {"active_sessions_threshold"}


def test_a_threshold_of_nought_is_none() -> None:
    metrics = Metrics()
    none = {"activeSessions": 0, "redisMemoryMegabytes": 0, "cacheHitPercent": 0, "failedPercent": 0}
    metrics.policies.upsert(policy_resource(alerts={"thresholds": none}, stores=STORES))
    found = samples(metrics)
    assert not found.keys() & {
        "active_sessions_threshold",
        "redis_memory_threshold_bytes",
        "redis_hit_threshold_ratio",
    }
    assert found["failed_deletions_threshold_ratio"] == 0  # here nought means: any that fails


def left(remaining: int, outcome: str = "Degraded", *, dry_run: bool = False) -> dict[str, Any]:
    return {"outcome": outcome, "dryRun": dry_run, "sessions": {"remaining": remaining}}


@pytest.mark.parametrize(
    ("history", "growing"),
    [
        ([], 0),
        ([left(9)], 0),
        ([left(9), left(9)], 0),
        ([left(9), left(8), left(7), left(8)], 2),
        ([left(1), {"outcome": "Succeeded"}], 1),  # counts of nought are not stored
        ([left(7), left(9), left(8)], 0),
        # Runs that could not look, or only looked, tell nothing of what is left.
        ([left(9), left(0, "Failed"), left(8), left(0, "Skipped"), left(99, dry_run=True), left(7)], 2),
    ],
)
def test_a_growing_backlog_is_seen_in_the_history(history: list[dict[str, Any]], growing: int) -> None:
    metrics = Metrics()
    policy = full_policy()
    policy["status"] = policy["status"] | {"history": history}
    metrics.policies.upsert(policy)
    assert samples(metrics)["backlog_growing_runs"] == growing


def test_whatever_a_status_says_labels_are_from_closed_sets() -> None:
    metrics = Metrics()
    policy = full_policy()
    alerts = [{"reason": reason, "count": 2} for reason in ("CanaryUser", "CanaryPassword", "RunTooLong")]
    policy["status"] = policy["status"] | {
        "lastRun": STATUS["lastRun"] | {"reason": "CanarySession", "message": "canary", "alerts": alerts},
        "conditions": [c | {"reason": "CanaryHost"} for c in STATUS["conditions"]],
    }
    metrics.policies.upsert(policy)
    found = samples(metrics)
    assert {name for name in found if name.startswith(("stalled", "last_run_reason", "last_run_alerts"))} == {
        "stalled Other",
        "last_run_reason Other",
        "last_run_alerts Other",
        "last_run_alerts RunTooLong",
    }
    assert found["last_run_alerts Other"] == 4
    assert "canary" not in exposed(metrics).lower()


@pytest.mark.parametrize(
    ("outcome", "shown"), [("Succeeded", True), ("Degraded", True), ("Failed", False), ("Skipped", False)]
)
def test_a_run_that_counted_nothing_does_not_say_that_nobody_is_there(outcome: str, shown: bool) -> None:
    metrics = Metrics()
    policy = full_policy()
    policy["status"] = policy["status"] | {"lastRun": STATUS["lastRun"] | {"outcome": outcome, "sessions": {}}}
    metrics.policies.upsert(policy)
    assert ("active_sessions" in samples(metrics)) is shown


def test_a_policy_that_does_not_parse_shows_what_its_status_tells() -> None:
    metrics = Metrics()
    broken = full_policy()
    broken["spec"]["schedule"] = 5
    metrics.policies.upsert(broken)
    found = samples(metrics)
    assert found["active_sessions"] == 5
    assert "suspended" not in found
    assert "schedule_interval_seconds" not in found


def test_a_policy_that_is_gone_shows_nothing() -> None:
    metrics = Metrics()
    other = full_policy()
    other["metadata"] = other["metadata"] | {"name": "other"}
    metrics.policies.upsert(full_policy())
    metrics.policies.upsert(other)
    metrics.policies.delete(("web", "other"))
    assert samples(metrics)["ready"] == 1
    metrics.policies.retain([])
    assert samples(metrics) == {}


def test_only_a_leader_shows_policies() -> None:
    metrics = Metrics()
    metrics.policies.upsert(full_policy())
    left = 5.0
    metrics.watch_leadership(lambda: left)
    assert samples(metrics)
    assert "session_policy_controller_leader 1.0" in exposed(metrics)
    left = 0.0
    assert samples(metrics) == {}
    assert "session_policy_controller_leader 0.0" in exposed(metrics)


def busy() -> Metrics:
    metrics = Metrics()
    metrics.policies.upsert(full_policy())
    metrics.reconciled(Result.CONFLICT, 0.25)
    metrics.queue_wait.observe(3)
    metrics.watch_queue(lambda: 4)
    metrics.api_request("patch", "sessionpolicies/status", "409")
    return metrics


def test_the_controller_s_own_figures() -> None:
    text = exposed(busy())
    assert 'session_policy_controller_reconcile_total{result="conflict"} 1.0' in text
    assert 'session_policy_controller_reconcile_total{result="error"} 0.0' in text
    assert "session_policy_controller_reconcile_duration_seconds_sum 0.25" in text
    assert "session_policy_controller_queue_wait_seconds_sum 3.0" in text
    assert "session_policy_controller_queue_depth 4.0" in text
    assert (
        'session_policy_controller_api_requests_total{code="409",resource="sessionpolicies/status",verb="patch"} 1.0'
        in text
    )
    assert 'session_policy_controller_build_info{version="' in text


def test_openmetrics_is_spoken_with_those_who_ask_for_it() -> None:
    text = exposed(busy(), OPENMETRICS)
    assert text.endswith("# EOF\n")
    named = {family.name for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
    assert named >= {"session_policy_runs", "session_policy_ready"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, which judges names and units, is not installed")
def test_promtool_finds_nothing_to_improve() -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=exposed(busy()), capture_output=True, text=True, check=False
    )
    complaints = [line for line in (checked.stdout + checked.stderr).splitlines() if "session_policy" in line]
    assert complaints == []


def test_every_metric_is_in_the_reference_and_no_other() -> None:
    reference = (Path(__file__).parents[3] / "docs" / "reference" / "metrics.md").read_text()
    rows = {line for line in reference.splitlines() if line.startswith("| `session_policy_")}
    told = set()
    for family in text_string_to_metric_families(exposed(busy())):
        if not family.name.startswith("session_policy") or family.name.endswith("_created"):
            continue
        labels = {label for sample in family.samples for label in sample.labels} - {"namespace", "policy", "le"}
        name = family.name + ("_total" if family.type == "counter" else "")
        named = ", ".join(f"`{label}`" for label in sorted(labels))
        told.add(f"| `{name}` | {family.type} | {named} | {family.documentation} |")
    assert rows == told
