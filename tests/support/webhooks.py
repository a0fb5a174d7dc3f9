"""A web hook as a chat service has one: real HTTP, in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.http_server import QuietHandler, serve


class WebHook:
    """Takes messages, refuses them, or never answers."""

    def __init__(self, port: int) -> None:
        self.url = f"json://127.0.0.1:{port}/token-nobody-may-see"
        self.received: list[dict[str, Any]] = []
        self.status = 200
        self.hangs = False
        self.released = threading.Event()

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.received]


@contextmanager
def web_hook() -> Iterator[WebHook]:
    """A server that is up while the block runs."""

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            body = self.body()
            if hook.hangs:
                self.drip(hook.released)
                return
            hook.received.append(json.loads(body))
            self.send_response(hook.status)
            self.end_headers()

    with serve(Handler) as port:
        hook = WebHook(port)
        try:
            yield hook
        finally:
            hook.released.set()
