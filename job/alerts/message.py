"""A problem in words: what, where, how many, since when, and where to read what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from job.alerts.notifications import Notification
from policy.alerts import runbook_link
from policy.report import printable

_MOST_LISTED = 10
_TITLE_LENGTH = 120


@dataclass(frozen=True, slots=True)
class AlertSource:
    """Where a run was.

    Attributes:
        policy: name of the policy.
        namespace: its namespace.
        cluster: name of the cluster, where it is known.
        trace_id: of the run's trace, where there is one.
    """

    policy: str
    namespace: str
    cluster: str | None = None
    trace_id: str | None = None

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.policy}"
        return f"{where} in {self.cluster}" if self.cluster else where


@dataclass(frozen=True, slots=True)
class Message:
    """What a channel is sent.

    Attributes:
        title: one line.
        body: plain text.
        resolved: whether it tells only of what is over.
    """

    title: str
    body: str
    resolved: bool


def compose_message(told: Sequence[Notification], place: AlertSource, runbook_url: str | None = None) -> Message:
    """One message about all that an audience is told now.

    Args:
        told: what is wrong, and what no longer is; at least one.
        place: where.
        runbook_url: where the runbooks are; see :func:`policy.alerts.runbook_link`.
    """
    standing = [notice for notice in told if not notice.resolved]
    subject = standing or list(told)
    first = subject[0].problem.reason
    more = f" and {len(subject) - 1} more" if len(subject) > 1 else ""
    state = "" if standing else " resolved"
    parts = [_paragraph(notice, runbook_url) for notice in [*standing, *(n for n in told if n.resolved)][:_MOST_LISTED]]
    return Message(
        title=printable(f"Session policy {place}: {first}{more}{state}", _TITLE_LENGTH),
        body="\n\n".join([*parts, f"Policy: {place.policy}\nNamespace: {place.namespace}{_more(place)}"]),
        resolved=not standing,
    )


def _paragraph(notice: Notification, runbook_url: str | None) -> str:
    problem = notice.problem
    head = f"{problem.reason} is over" if notice.resolved else f"{problem.reason}: {problem.message}"
    lines = [printable(head), f"Since: {_text(notice.since)}"]
    if not notice.resolved:
        lines.append(f"What to do: {runbook_link(problem.reason, runbook_url)}")
    return "\n".join(lines)


def _more(place: AlertSource) -> str:
    known = (("Cluster", place.cluster), ("Trace", place.trace_id))
    return "".join(f"\n{name}: {value}" for name, value in known if value)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
