"""The controller's HTTP endpoint: ``/healthz`` and ``/readyz`` for probes, ``/metrics`` for Prometheus."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

# A client that is being answered while the controller stops has this long to read it.
_SHUTDOWN_SECONDS = 1.0


class HttpServer:
    """Answers as soon as it is started, on the leader as on standbys."""

    def __init__(self, registry: CollectorRegistry, is_alive: Callable[[], bool], is_ready: Callable[[], bool]) -> None:
        """Make a server.

        Args:
            registry: what ``/metrics`` shows.
            is_alive: for ``/healthz``; called in the event loop, so an answer also shows that the loop runs.
            is_ready: for ``/readyz``.
        """
        self._registry = registry
        application = web.Application()
        application.router.add_get("/healthz", _probe(is_alive))
        application.router.add_get("/readyz", _probe(is_ready))
        application.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)

    async def start(self, port: int) -> None:
        """Listen on all addresses.

        Raises:
            OSError: the port is taken.
        """
        await self._runner.setup()
        await web.SockSite(self._runner, _listen(port)).start()

    async def close(self) -> None:
        """Stop listening and close all connections."""
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        # Thousands of policies take a good part of a second to write; that must not block the event loop.
        body = await asyncio.to_thread(encode, self._registry)
        response = web.Response(body=body, headers={"Content-Type": content_type})
        response.enable_compression()
        return response


def _probe(holds: Callable[[], bool]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if holds() else web.Response(text="not ok\n", status=503)

    return answer


def _listen(port: int) -> socket.socket:
    """A socket for IPv4 and, where there is IPv6, for that, too: the kubelet probes a Pod by its first address."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))
