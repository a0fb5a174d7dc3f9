"""Sending by Apprise, within a time that nothing can stretch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from job.alerts.message import Message
from job.alerts.problems import Audience
from policy.names import ALERT_OPERATIONS_URLS_ENV, ALERT_SECURITY_URLS_ENV
from stores.waiting.bounded_wait import call_all

_MOST_URLS = 20


@dataclass(frozen=True)
class Channels:
    """The Apprise URLs of each audience. They hold tokens and passwords: they go into no log and no message.

    Attributes:
        urls: by audience.
    """

    urls: Mapping[Audience, tuple[str, ...]]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Channels:
        """With the URLs in the environment: one per line, or separated by blanks."""
        names = {Audience.OPERATIONS: ALERT_OPERATIONS_URLS_ENV, Audience.SECURITY: ALERT_SECURITY_URLS_ENV}
        found = {audience: tuple(environment.get(name, "").split())[:_MOST_URLS] for audience, name in names.items()}
        return cls({audience: urls for audience, urls in found.items() if urls})

    def audience(self, wanted: Audience) -> Audience:
        """Who is told in place of an audience that has no channel: operations of what is security's."""
        return wanted if wanted in self.urls else Audience.OPERATIONS

    def __bool__(self) -> bool:
        return bool(self.urls)

    def __repr__(self) -> str:
        return f"Channels({', '.join(sorted(self.urls))})"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a message on one channel.

    Attributes:
        audience: whom it was for.
        channel: its place in the Secret, from 1, and the kind of service; nothing secret.
        why: what was wrong; empty if the service took it.
    """

    audience: Audience
    channel: str
    why: str = ""

    @property
    def sent(self) -> bool:
        """Whether the service took it."""
        return not self.why


def deliver(messages: Mapping[Audience, Message], channels: Channels, seconds: float) -> list[Delivery]:
    """Sends each audience its message on all its channels at once.

    Args:
        messages: by audience.
        channels: where to.
        seconds: when to stop waiting, counted from now.
    """
    pending = [
        (audience, number, _Sending(url, messages[audience]))
        for audience, urls in channels.urls.items()
        if audience in messages
        for number, url in enumerate(urls, start=1)
    ]
    answers = call_all([sending for _, _, sending in pending], "alert", seconds)
    return [
        Delivery(audience, f"{number} ({sending.kind})", why=_why(answer, seconds))
        for (audience, number, sending), answer in zip(pending, answers, strict=True)
    ]


def _why(answer: Future[str], seconds: float) -> str:
    if not answer.done():
        return f"no answer within {seconds:.0f} seconds"
    if error := answer.exception():  # a plugin may raise anything; its text may quote the URL
        return f"the service's plugin failed ({type(error).__name__})"
    return answer.result()


def reached(deliveries: Sequence[Delivery]) -> frozenset[Audience]:
    """The audiences whom at least one channel has told."""
    return frozenset(delivery.audience for delivery in deliveries if delivery.sent)


def problem_of(url: str) -> str:
    """Why nothing can be sent to a URL, as far as that shows without sending; or nothing."""
    return _NOT_KNOWN if _instantiate(url) is None else ""


_NOT_KNOWN = "not a URL that Apprise knows; see its documentation of the service"


def _instantiate(url: str) -> Any:
    # Its import takes longer than a whole run without alerts.
    from apprise import Apprise  # noqa: PLC0415

    # Apprise's own log lines name hosts and quote answers.
    logging.getLogger("apprise").disabled = True
    return Apprise.instantiate(url)


class _Sending:
    """One message on its way to one URL.

    Attributes:
        kind: of the service, once Apprise has recognised it. Not earlier: any text of a Secret may look like a URL.
    """

    def __init__(self, url: str, message: Message) -> None:
        self._url = url
        self._message = message
        self.kind = "not recognised"

    def __call__(self) -> str:
        """Sends it. Returns why it failed, or nothing."""
        service = _instantiate(self._url)
        if service is None:
            return _NOT_KNOWN
        self.kind = self._url.partition("://")[0]
        from apprise import NotifyType  # noqa: PLC0415

        kind = NotifyType.SUCCESS if self._message.resolved else NotifyType.WARNING
        sent = service.notify(title=self._message.title, body=self._message.body, notify_type=kind)
        return "" if sent else "the service did not take it"
