"""Sends a run's alerts after its report is written, within a few seconds."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from job.alerts.alert_memory import AlertMemory
from job.alerts.alert_state import EMPTY_STATE, AlertState
from job.alerts.channels import Channels, Delivery, reached_audiences, send
from job.alerts.message import AlertSource, compose_message
from job.alerts.notifications import Notification, due_notifications, is_complete, updated_state
from job.alerts.problems import Audience, Problem
from policy.alerts import Alerts
from policy.report import Outcome, RunReport

TOTAL_SECONDS = 8.0
"""The longest that alerts may delay the end of a run. (Importing Apprise takes two seconds with 15 % of a CPU.)"""
_LOAD_SECONDS = 2.0
_SAVE_SECONDS = 1.0


def notify(
    found: Sequence[Problem],
    report: RunReport,
    alerts: Alerts,
    channels: Channels,
    source: AlertSource,
    memory: AlertMemory,
    log: Any,
    now: datetime,
    seconds: float = TOTAL_SECONDS,
) -> list[Delivery]:
    """Sends the alerts that are due and returns the results. Does not raise if a channel or a store is down.

    The problems of a dry run are only logged: it saves nothing, so each would send them again. A skipped run found
    none.

    Args:
        found: from :func:`job.alerts.problems.problems`.
        report: of the run; it must already be written as the termination message.
        alerts: spec.alerts of the policy.
        channels: where to send.
        source: the run.
        memory: what earlier runs have sent.
        log: the alert log.
        now: the time.
        seconds: time limit for all of it.
    """
    for problem in found:
        log.warning("problem found", reason=problem.reason, audience=problem.audience.value, count=problem.count)
    if report.dry_run or report.outcome is Outcome.SKIPPED or not channels:
        return []
    deadline = time.monotonic() + seconds
    state = memory.load(min(_LOAD_SECONDS, seconds))
    if not found and state.problems == EMPTY_STATE.problems:
        return []
    complete = is_complete(report)
    due = due_notifications(found, state, now, alerts.repeat_after_seconds, complete=complete)
    deliveries = _send(due, channels, source, alerts.runbook_url, deadline - _SAVE_SECONDS - time.monotonic())
    _log(deliveries, log)
    sent = {n.problem.reason for n in due if channels.audience(n.problem.audience) in reached_audiences(deliveries)}
    after = updated_state(found, state, sent, now, alerts.repeat_after_seconds, complete=complete)
    _save(after, memory, log, max(_SAVE_SECONDS, deadline - time.monotonic()))
    return deliveries


def _send(
    due: Sequence[Notification], channels: Channels, source: AlertSource, runbook_url: str | None, seconds: float
) -> list[Delivery]:
    by_audience: dict[Audience, list[Notification]] = defaultdict(list)
    for notification in due:
        by_audience[channels.audience(notification.problem.audience)].append(notification)
    messages = {audience: compose_message(some, source, runbook_url) for audience, some in by_audience.items()}
    return send(messages, channels, seconds) if messages else []


def _log(deliveries: Sequence[Delivery], log: Any) -> None:
    for delivery in deliveries:
        fields = {"audience": delivery.audience.value, "channel": delivery.channel}
        if delivery.sent:
            log.info("alert sent", **fields)
        else:
            log.warning("alert not sent", **fields, because=delivery.error)


def _save(state: AlertState, memory: AlertMemory, log: Any, seconds: float) -> None:
    if memory.save(state, seconds) == 0:
        log.warning(
            "alert state not saved",
            because="neither database, Redis nor log volume saved which alerts were sent; each run sends them again",
            remedy="run `session-policy init`; it creates the table session_alerts",
        )
