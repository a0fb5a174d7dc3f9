"""A web hook as a chat service has one: real HTTP, in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


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

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if hook.hangs:
                # A drip now and then: no time-out between two bytes ever ends this.
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                number = 0
                while not hook.released.wait(0.2):
                    number += 1
                    self.wfile.write(f"X-Drip-{number}: x\r\n".encode())
                    self.wfile.flush()
                return
            hook.received.append(json.loads(body))
            self.send_response(hook.status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hook = WebHook(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        hook.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
