"""Telling people of a run's problems, after its report is written and without holding up its end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from job.alerts.alert_memory import MemoryStore, load, save
from job.alerts.alert_state import EMPTY_STATE, AlertState
from job.alerts.channels import Channels, Delivery, deliver, reached_audiences
from job.alerts.message import AlertSource, compose_message
from job.alerts.notifications import Notification, due_notifications, is_complete, updated_state
from job.alerts.problems import Audience, Problem
from policy.alerts import Alerts
from policy.report import Outcome, RunReport

TOTAL_SECONDS = 8.0
"""The most that alerts may add to a run. (Apprise alone takes two on a container with 15 % of a CPU.)"""
_LOAD_SECONDS = 2.0
_SAVE_SECONDS = 1.0


def notify(
    found: Sequence[Problem],
    report: RunReport,
    alerts: Alerts,
    channels: Channels,
    place: AlertSource,
    stores: Sequence[MemoryStore],
    log: Any,
    now: datetime,
    seconds: float = TOTAL_SECONDS,
) -> list[Delivery]:
    """Sends what is due; returns what became of it. Never raises for a channel or a store that is down.

    A dry run changes nothing, so nobody could updated_state what it told: its problems are only logged. A run that was
    skipped has looked at nothing.

    Args:
        found: from :func:`job.alerts.problems.problems`.
        report: the run's; must be where the controller finds it already.
        alerts: the policy's.
        channels: where to send.
        place: where the run was.
        stores: where it is remembered what was told.
        log: the alert log.
        now: the time.
        seconds: how long all of it may take.
    """
    for problem in found:
        log.warning("problem", reason=problem.reason, audience=problem.audience.value, count=problem.count)
    if report.dry_run or report.outcome is Outcome.SKIPPED or not channels:
        return []
    deadline = time.monotonic() + seconds
    memory = load(stores, min(_LOAD_SECONDS, seconds))
    if not found and memory.problems == EMPTY_STATE.problems:
        return []
    complete = is_complete(report)
    due = due_notifications(found, memory, now, alerts.repeat_after_seconds, complete=complete)
    deliveries = _send(due, channels, place, alerts.runbook_url, deadline - _SAVE_SECONDS - time.monotonic())
    _log(deliveries, log)
    told = {n.problem.reason for n in due if channels.audience(n.problem.audience) in reached_audiences(deliveries)}
    after = updated_state(found, memory, told, now, alerts.repeat_after_seconds, complete=complete)
    _keep(after, stores, log, max(_SAVE_SECONDS, deadline - time.monotonic()))
    return deliveries


def _send(
    due: Sequence[Notification], channels: Channels, place: AlertSource, runbook_url: str | None, seconds: float
) -> list[Delivery]:
    by_audience: dict[Audience, list[Notification]] = defaultdict(list)
    for notice in due:
        by_audience[channels.audience(notice.problem.audience)].append(notice)
    messages = {audience: compose_message(told, place, runbook_url) for audience, told in by_audience.items()}
    return deliver(messages, channels, seconds) if messages else []


def _log(deliveries: Sequence[Delivery], log: Any) -> None:
    for one in deliveries:
        if one.sent:
            log.info("alert sent", audience=one.audience.value, channel=one.channel)
        else:
            log.warning("alert not sent", audience=one.audience.value, channel=one.channel, because=one.why)


def _keep(memory: AlertState, stores: Sequence[MemoryStore], log: Any, seconds: float) -> None:
    if save(stores, memory, seconds) == 0:
        log.warning(
            "alerts not remembered",
            because="neither database, Redis nor log volume could keep what was told; it is told again with each run",
            remedy="run `session-policy init`, which creates the table session_alerts",
        )
