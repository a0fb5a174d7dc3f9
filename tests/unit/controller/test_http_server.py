"""The HTTP endpoint, over a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import pytest

from controller.metrics.controller_metrics import Metrics
from controller.runtime.http_server import HttpServer
from tests.support.ports import free_port


@dataclass
class Endpoint:
    """A running server, a client, and what the controller would say of itself."""

    port: int
    session: aiohttp.ClientSession
    alive: bool = True
    ready: bool = True


def play(scenario: Callable[[Endpoint], Awaitable[None]]) -> None:
    async def run() -> None:
        port = free_port()
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            endpoint = Endpoint(port, session)
            server = HttpServer(Metrics().registry, lambda: endpoint.alive, lambda: endpoint.ready)
            await server.start(port)
            try:
                await scenario(endpoint)
            finally:
                await server.close()

    asyncio.run(run())


def test_probes_answer_apart_from_each_other() -> None:
    async def scenario(endpoint: Endpoint) -> None:
        async def answers() -> tuple[int, int]:
            async with endpoint.session.get("/healthz") as health, endpoint.session.get("/readyz") as readiness:
                return health.status, readiness.status

        assert await answers() == (200, 200)
        endpoint.ready = False
        assert await answers() == (200, 503)
        endpoint.alive, endpoint.ready = False, True
        assert await answers() == (503, 200)

    play(scenario)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("*/*", "text/plain"), ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text")],
)
def test_metrics_come_in_the_format_that_was_asked_for(accept: str, content_type: str) -> None:
    async def scenario(endpoint: Endpoint) -> None:
        async with endpoint.session.get("/metrics", headers={"Accept": accept}) as response:
            assert response.status == 200
            assert response.content_type == content_type
            assert "session_policy_controller_build_info" in await response.text()

    play(scenario)


def test_a_taken_port_is_told() -> None:
    async def scenario() -> None:
        with socket.create_server(("", 0)) as taken:
            server = HttpServer(Metrics().registry, lambda: True, lambda: True)
            try:
                with pytest.raises(OSError, match="in use"):
                    await server.start(taken.getsockname()[1])
            finally:
                await server.close()

    asyncio.run(scenario())
