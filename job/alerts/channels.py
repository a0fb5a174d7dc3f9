"""Sends alerts with Apprise, within a hard time limit."""

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

_MAX_URLS = 20


@dataclass(frozen=True)
class Channels:
    """The Apprise URLs of each audience. They hold tokens and passwords and must not get into logs or messages.

    Attributes:
        urls: by audience.
    """

    urls: Mapping[Audience, tuple[str, ...]]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Channels:
        """The URLs in the environment: one per line, or separated by blanks."""
        names = {Audience.OPERATIONS: ALERT_OPERATIONS_URLS_ENV, Audience.SECURITY: ALERT_SECURITY_URLS_ENV}
        found = {audience: tuple(environment.get(name, "").split())[:_MAX_URLS] for audience, name in names.items()}
        return cls({audience: urls for audience, urls in found.items() if urls})

    def audience(self, wanted: Audience) -> Audience:
        """The audience that gets the alert: operations if the wanted one has no channel."""
        return wanted if wanted in self.urls else Audience.OPERATIONS

    def __bool__(self) -> bool:
        return bool(self.urls)

    def __repr__(self) -> str:
        return f"Channels({', '.join(sorted(self.urls))})"


@dataclass(frozen=True, slots=True)
class Delivery:
    """The result of sending a message to one channel.

    Attributes:
        audience: for whom the message is.
        channel: the URL's number in the Secret, from 1, and the service; nothing secret.
        error: why it was not sent; empty if the service accepted it.
    """

    audience: Audience
    channel: str
    error: str = ""

    @property
    def sent(self) -> bool:
        """Whether the service accepted it."""
        return not self.error


def send(messages: Mapping[Audience, Message], channels: Channels, seconds: float) -> list[Delivery]:
    """Sends each audience its message, to all channels in parallel.

    Args:
        messages: by audience.
        channels: the URLs.
        seconds: how long to wait for all of them.
    """
    pending = [
        (audience, number, _ChannelSend(url, messages[audience]))
        for audience, urls in channels.urls.items()
        if audience in messages
        for number, url in enumerate(urls, start=1)
    ]
    answers = call_all([sending for _, _, sending in pending], "alert", seconds)
    return [
        Delivery(audience, f"{number} ({sending.service})", _error(answer, seconds))
        for (audience, number, sending), answer in zip(pending, answers, strict=True)
    ]


def _error(answer: Future[str], seconds: float) -> str:
    if not answer.done():
        return f"no answer within {seconds:.0f} seconds"
    if error := answer.exception():  # a plugin may raise anything, and its message may quote the URL
        return f"the service's plugin failed ({type(error).__name__})"
    return answer.result()


def reached_audiences(deliveries: Sequence[Delivery]) -> frozenset[Audience]:
    """The audiences that at least one channel reached."""
    return frozenset(delivery.audience for delivery in deliveries if delivery.sent)


def url_problem(url: str) -> str:
    """What is wrong with a URL, as far as that shows without sending; empty if nothing."""
    return _UNKNOWN_URL if _instantiate(url) is None else ""


_UNKNOWN_URL = "not a valid Apprise URL; see Apprise's documentation of the service"


def _instantiate(url: str) -> Any:
    # Importing Apprise takes longer than a whole run without alerts.
    from apprise import Apprise  # noqa: PLC0415

    # Apprise's own log lines contain hosts and responses.
    logging.getLogger("apprise").disabled = True
    return Apprise.instantiate(url)


class _ChannelSend:
    """Sends one message to one URL.

    Attributes:
        service: the URL's scheme, once Apprise has recognised it. Not before: a Secret may hold any text.
    """

    def __init__(self, url: str, message: Message) -> None:
        self._url = url
        self._message = message
        self.service = "not recognised"

    def __call__(self) -> str:
        """Sends it. Returns why that failed; empty if it did not."""
        channel = _instantiate(self._url)
        if channel is None:
            return _UNKNOWN_URL
        self.service = self._url.partition("://")[0]
        from apprise import NotifyType  # noqa: PLC0415

        kind = NotifyType.SUCCESS if self._message.resolved else NotifyType.WARNING
        sent = channel.notify(title=self._message.title, body=self._message.body, notify_type=kind)
        return "" if sent else "the service did not accept it"
