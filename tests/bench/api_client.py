"""A bare client of the API server: the yardstick, and the hand that makes thousands of objects quickly."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Self, TypeVar

import aiohttp

from tests.support.controlplane import ControlPlane

Resource = dict[str, Any]
T = TypeVar("T")

CONNECTIONS = 16
"""As many requests at once as the controller has workers."""

_MERGE_PATCH = "application/merge-patch+json"


class ApiClient:
    """Requests with all rights."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    @classmethod
    def to(cls, plane: ControlPlane) -> Self:
        """A client of this control plane."""
        pki = plane.directory / "pki"
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        connector = aiohttp.TCPConnector(ssl=context, limit=CONNECTIONS + 4)
        return cls(aiohttp.ClientSession(connector=connector), plane.url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def request(self, method: str, path: str, body: Any = None) -> Resource:
        """One request; a PATCH is a merge patch.

        Raises:
            RuntimeError: the server refused it.
        """
        content_type = _MERGE_PATCH if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body)
        async with self._session.request(
            method, self._url + path, data=data, headers={"Content-Type": content_type}
        ) as response:
            answer: Resource = await response.json(content_type=None)
            if response.status >= 300:
                raise RuntimeError(f"{method} {path}: {response.status} {answer.get('message')}")
            return answer

    async def watch(self, path: str) -> AsyncIterator[Resource]:
        """Objects as they are added or changed, beginning with those that are there."""
        buffer = b""
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(f"{self._url}{path}?watch=true", timeout=timeout) as response:
            # Not by lines: aiohttp limits their length.
            async for chunk in response.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] in ("ADDED", "MODIFIED"):
                        yield event["object"]


async def at_once(work: Callable[[T], Awaitable[Any]], items: Iterable[T], workers: int = CONNECTIONS) -> float:
    """Do the work on all items, a few at a time, and return how long it took in seconds."""
    queue = iter(items)

    async def worker() -> None:
        for item in queue:
            await work(item)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(workers)))
    return time.perf_counter() - began
