"""Policies, Jobs and Pods as the API server shows them, for tests of pure functions."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.settings.controller_settings import Settings
from policy.manifest import SessionPolicy, parse_policy
from policy.names import API_VERSION, KIND
from policy.report import Outcome
from policy.status import RunRecord, Trigger

POLICY_UID = "0d9ae7a6-0000-4000-8000-000000000001"
JOB_UID = "0d9ae7a6-0000-4000-8000-000000000002"
START = datetime(2026, 3, 1, 10, 50, tzinfo=UTC)
SETTINGS = Settings(job_image="registry.example/session-policy-job:1.2.3")

REPORT: dict[str, Any] = {
    "outcome": "Succeeded",
    "reason": "Completed",
    "message": "3 of 3 expired sessions deleted",
    "startTime": "2026-03-01T10:50:02Z",
    "completionTime": "2026-03-01T10:50:12Z",
    "durationSeconds": 10.5,
    "policyGeneration": 7,
    "sessions": {"active": 5, "expired": 3, "deleted": 3},
}


def policy_resource(name: str = "shop", **spec: Any) -> dict[str, Any]:
    secret = {"secretKeyRef": {"name": "shop-db", "key": "url"}}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": "web", "uid": POLICY_UID, "generation": 7},
        "spec": {"stores": {"database": {"urlFrom": secret}}} | spec,
    }


def typed_policy(name: str = "shop", **spec: Any) -> SessionPolicy:
    return parse_policy(policy_resource(name, **spec))


def timestamp(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def job(
    *,
    name: str = "shop-29000000",
    uid: str = JOB_UID,
    ended: str | None = None,
    reason: str = "",
    seconds: int = 20,
    annotations: dict[str, str] | None = None,
    dry_run: bool = False,
    workers: int = 1,
) -> dict[str, Any]:
    """A Job; `ended` is Complete or Failed. With several workers it is an Indexed one."""
    end = timestamp(START + timedelta(seconds=seconds))
    status: dict[str, Any] = {"startTime": timestamp(START)}
    if ended:
        status["conditions"] = [{"type": ended, "status": "True", "reason": reason, "lastTransitionTime": end}]
    if ended == "Complete":
        status["completionTime"] = end
    manifest = json.dumps({"metadata": {"generation": 7}, "spec": {"dryRun": dry_run}})
    container = {"name": "session-policy", "env": [{"name": "SESSION_POLICY", "value": manifest}]}
    return {
        "metadata": {
            "name": name,
            "namespace": "web",
            "uid": uid,
            "creationTimestamp": timestamp(START),
            "annotations": annotations or {},
        },
        "spec": {"template": {"spec": {"containers": [container]}}}
        | ({"completionMode": "Indexed", "completions": workers, "parallelism": workers} if workers > 1 else {}),
        "status": status,
    }


def pod(
    *,
    name: str = "shop-29000000-abcde",
    owner: str = JOB_UID,
    created: datetime = START,
    state: dict[str, Any] | None = None,
    index: int | None = None,
    **status: Any,
) -> dict[str, Any]:
    containers = [{"name": "session-policy", "state": state}] if state else []
    ended = (state or {}).get("terminated")
    phase = {"phase": "Succeeded" if ended["exitCode"] == 0 else "Failed"} if ended else {}
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-of-{name}",
            "creationTimestamp": timestamp(created),
            "ownerReferences": [{"uid": owner, "kind": "Job"}],
            "annotations": {} if index is None else {"batch.kubernetes.io/job-completion-index": str(index)},
        },
        "spec": {"containers": [{"name": "session-policy", "image": SETTINGS.job_image}]},
        "status": phase | {"containerStatuses": containers} | status,
    }


def terminated(exit_code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": exit_code, "reason": reason, "message": message}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def report(**changed: Any) -> str:
    return json.dumps(copy.deepcopy(REPORT) | changed)


def run(number: int, outcome: Outcome = Outcome.SUCCEEDED, *, uid: str | None = None) -> RunRecord:
    """The record of a run that ended `number` minutes after START."""
    completed = START + timedelta(minutes=number)
    return RunRecord(
        outcome=outcome,
        reason="Completed" if outcome is Outcome.SUCCEEDED else "SomethingWrong",
        message=f"run {number}",
        start_time=completed - timedelta(seconds=30),
        completion_time=completed,
        duration_seconds=30,
        job_name=f"shop-{number}",
        job_uid=uid or f"uid-{number}",
        trigger=Trigger.SCHEDULE,
    )
