"""A real HTTP server of this process, for tests that look at what is sent to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_DRIP_SECONDS = 0.2


class QuietHandler(BaseHTTPRequestHandler):
    """Answers requests, without a word about it and about clients that hang up."""

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def handle(self) -> None:
        """As its base, but for clients that are gone."""
        with suppress(BrokenPipeError, ConnectionResetError):
            super().handle()

    def body(self) -> bytes:
        """What came with the request."""
        return self.rfile.read(int(self.headers["Content-Length"]))

    def drip(self, until: threading.Event) -> None:
        """Answers a little now and then, without an end: no time-out between two bytes ever ends this."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not until.wait(_DRIP_SECONDS):
            self.wfile.write(b".")
            self.wfile.flush()


@contextmanager
def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Serves while the block runs; yields the port on the loopback address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
