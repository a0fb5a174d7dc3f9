"""An API server, or a load balancer before it, that answers badly: stands between a client and the real one.

Unlike `TcpProxy` it understands the requests, so that it can answer 429 or 500 itself, or swallow the answer to a
request that the real server has executed.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from pathlib import Path
from typing import Self

import aiohttp
from aiohttp import web

from tests.support.patience import PATIENCE_SECONDS

_HOST = "127.0.0.1"
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})


class Fault(Enum):
    """What goes wrong with a request."""

    TOO_MANY_REQUESTS = auto()
    """Not executed: 429 with Retry-After."""
    INTERNAL_ERROR = auto()
    """Not executed: 500."""
    UNAVAILABLE = auto()
    """Not executed: 503 of a proxy, in plain text."""
    LOST_REQUEST = auto()
    """Not executed: the connection is cut."""
    LOST_ANSWER = auto()
    """Executed, but the connection is cut before the answer: the client cannot know."""
    EXECUTED_BUT_ERROR = auto()
    """Executed, but answered with 504, as when a time-out strikes on the way back."""


@dataclass(frozen=True)
class Request:
    """A request as it came in.

    Attributes:
        method: as in HTTP.
        path: without the query.
        is_watch: whether it stays open.
    """

    method: str
    path: str
    is_watch: bool


@dataclass(frozen=True)
class Exchange:
    """A request and what became of it.

    Attributes:
        request: the request.
        fault: what went wrong by this proxy's doing.
        status: what the real server answered; None if it was not asked.
    """

    request: Request
    fault: Fault | None
    status: int | None


def no_fault(_: Request) -> Fault | None:
    """All goes well."""
    return None


class ApiProxy:
    """Passes requests on to an API server. Use it as a context manager; it runs in a thread of its own.

    Args:
        target: URL of the real API server.
        pki: directory with the server's own certificate and key, under which the proxy answers, and the authority's.
        fault: asked before each request, in the proxy's thread.
    """

    def __init__(self, target: str, pki: Path, fault: Callable[[Request], Fault | None] = no_fault) -> None:
        self.port = 0
        self.fault = fault
        self.exchanges: list[Exchange] = []
        self._target = target
        self._pki = pki
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="API proxy", daemon=True)
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._transports: set[asyncio.BaseTransport] = set()
        self._executing: set[asyncio.Task[web.StreamResponse]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(timeout=PATIENCE_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(timeout=PATIENCE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """Where the API server seems to be."""
        return f"https://{_HOST}:{self.port}"

    async def _start(self) -> None:
        trusted = ssl.create_default_context(cafile=str(self._pki / "ca.crt"))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trusted, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        )
        own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        own.load_cert_chain(self._pki / "apiserver.crt", self._pki / "apiserver.key")
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, _HOST, self.port, ssl_context=own)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        for transport in self._transports:
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()
        # Transports are closed by callbacks of their own.
        await asyncio.sleep(0.1)

    async def _handle(self, received: web.Request) -> web.StreamResponse:
        if received.transport is not None:
            self._transports.add(received.transport)
        request = Request(received.method, received.path, received.query.get("watch") in ("true", "1"))
        fault = self.fault(request)
        if fault is Fault.LOST_REQUEST:
            self.exchanges.append(Exchange(request, fault, None))
            return _hang_up(received)
        if fault is not None and fault not in (Fault.LOST_ANSWER, Fault.EXECUTED_BUT_ERROR):
            self.exchanges.append(Exchange(request, fault, None))
            return _refusal(fault)
        if fault is None:
            return await self._pass_on(received, request, None)
        # What is to be executed is executed, even if the client is gone by now.
        executing = asyncio.create_task(self._pass_on(received, request, fault))
        self._executing.add(executing)
        executing.add_done_callback(self._executing.discard)
        return await asyncio.shield(executing)

    async def _pass_on(self, received: web.Request, request: Request, fault: Fault | None) -> web.StreamResponse:
        assert self._session is not None
        headers = {name: value for name, value in received.headers.items() if name.lower() not in _HOP_BY_HOP}
        body = await received.read()
        try:
            async with self._session.request(
                received.method, self._target + received.raw_path, headers=headers, data=body or None
            ) as answer:
                self.exchanges.append(Exchange(request, fault, answer.status))
                if fault is Fault.EXECUTED_BUT_ERROR:
                    await answer.read()
                    return web.Response(status=HTTPStatus.GATEWAY_TIMEOUT, text="upstream request timeout")
                if fault is Fault.LOST_ANSWER:
                    await answer.read()
                    return _hang_up(received)
                response = web.StreamResponse(status=answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in _HOP_BY_HOP:
                        response.headers.add(name, value)
                await response.prepare(received)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                return response
        except (aiohttp.ClientError, ConnectionError):
            return _hang_up(received)


def _hang_up(received: web.Request) -> web.StreamResponse:
    with suppress(ConnectionError):
        if received.transport is not None:
            received.transport.abort()
    return web.Response()


def _refusal(fault: Fault) -> web.Response:
    if fault is Fault.UNAVAILABLE:
        return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text="upstream connect error")
    too_many = fault is Fault.TOO_MANY_REQUESTS
    code = HTTPStatus.TOO_MANY_REQUESTS if too_many else HTTPStatus.INTERNAL_SERVER_ERROR
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": "too many requests, please try again later" if too_many else "Internal error occurred",
        "reason": "TooManyRequests" if too_many else "InternalError",
        "code": int(code),
    }
    headers = {"Retry-After": "1"} if too_many else {}
    return web.Response(status=code, body=json.dumps(status).encode(), content_type="application/json", headers=headers)
