"""The text of an alert: what, where, how many, since when, and the runbook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from job.alerts.notifications import Notification
from policy.alerts import runbook_link
from policy.report import printable

_MAX_PROBLEMS = 10
_MAX_TITLE_LENGTH = 120


@dataclass(frozen=True, slots=True)
class AlertSource:
    """The run that an alert is about.

    Attributes:
        policy: name of the policy.
        namespace: its namespace.
        cluster: name of the cluster, if known.
        trace_id: of the run's trace, if it is traced.
    """

    policy: str
    namespace: str
    cluster: str | None = None
    trace_id: str | None = None

    def __str__(self) -> str:
        name = f"{self.namespace}/{self.policy}"
        return f"{name} in {self.cluster}" if self.cluster else name


@dataclass(frozen=True, slots=True)
class Message:
    """The message for a channel.

    Attributes:
        title: one line.
        body: plain text.
        resolved: whether it is only about problems that are over.
    """

    title: str
    body: str
    resolved: bool


def compose_message(
    notifications: Sequence[Notification], source: AlertSource, runbook_url: str | None = None
) -> Message:
    """One message with all notifications for an audience.

    Args:
        notifications: at least one.
        source: the run.
        runbook_url: alerts.runbookUrl of the policy.
    """
    current = [notification for notification in notifications if not notification.resolved]
    resolved = [notification for notification in notifications if notification.resolved]
    subject = current or resolved
    first = subject[0].problem.reason
    more = f" and {len(subject) - 1} more" if len(subject) > 1 else ""
    state = "" if current else " resolved"
    parts = [_paragraph(notification, runbook_url) for notification in [*current, *resolved][:_MAX_PROBLEMS]]
    return Message(
        title=printable(f"Session policy {source}: {first}{more}{state}", _MAX_TITLE_LENGTH),
        body="\n\n".join([*parts, f"Policy: {source.policy}\nNamespace: {source.namespace}{_optional_lines(source)}"]),
        resolved=not current,
    )


def _paragraph(notification: Notification, runbook_url: str | None) -> str:
    problem = notification.problem
    head = f"{problem.reason} is over" if notification.resolved else f"{problem.reason}: {problem.message}"
    lines = [printable(head), f"Since: {_text(notification.since)}"]
    if not notification.resolved:
        link = runbook_link(problem.reason, runbook_url)
        lines.append(
            f"Runbook: {link}" if runbook_url else f"Runbook: {link} in the repository of session-policy-operator"
        )
    return "\n".join(lines)


def _optional_lines(source: AlertSource) -> str:
    known = (("Cluster", source.cluster), ("Trace", source.trace_id))
    return "".join(f"\n{name}: {value}" for name, value in known if value)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
