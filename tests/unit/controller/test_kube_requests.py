"""Which requests are sent, and what is told of them. A real HTTP server stands in for the API server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from controller.api.kube import JOBS, PODS, POLICIES, Kube, NotFoundError, NotLeaderError, UnavailableError
from tests.support.ports import free_port

POLICY = {"metadata": {"namespace": "web", "name": "shop", "resourceVersion": "7"}}
EVENT = {"metadata": {"namespace": "web", "name": "shop.1"}}
LEASE = {"metadata": {"namespace": "web", "name": "lease"}}

Observed = list[tuple[str, str, str]]


def play(scenario: Callable[[Kube, Observed], Awaitable[None]]) -> tuple[list[str], Observed]:
    """Run a scenario; returns the requests that arrived, and what was told of them."""
    arrived: list[str] = []
    observed: Observed = []

    async def answer(request: web.Request) -> web.Response:
        arrived.append(f"{request.method} {request.path}")
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "List",
            "items": [],
            "metadata": {"resourceVersion": "1"},
            "resources": [],
        }
        return web.json_response(body, status=404 if "missing" in request.path else 200)

    async def run() -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(application)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        configuration = client.Configuration(host=f"http://127.0.0.1:{port}")
        configuration.retries = None
        kube = Kube(client.ApiClient(configuration), lambda *seen: observed.append(seen))
        try:
            await scenario(kube, observed)
        finally:
            await kube.close()
            await runner.cleanup()

    asyncio.run(run())
    return arrived, observed


def test_without_the_lease_nothing_is_written_and_everything_can_be_read() -> None:
    async def scenario(kube: Kube, _: Observed) -> None:
        kube.guard_writes(lambda: 0)
        writes: list[Callable[[], Awaitable[object]]] = [
            lambda: kube.replace_policy_status(POLICY, {}),
            lambda: kube.create_cron_job(POLICY),
            lambda: kube.apply_cron_job(POLICY, "uid"),
            lambda: kube.patch_cron_job("web", "shop", []),
            lambda: kube.create_job(POLICY),
            lambda: kube.create_event(EVENT),
        ]
        for write in writes:
            with pytest.raises(NotLeaderError):
                await write()
        await kube.get_policy("web", "shop")
        [page async for page in kube.list_pages(JOBS, "web")]

    arrived, _ = play(scenario)
    assert [request.split()[0] for request in arrived] == ["GET", "GET"]


def test_with_the_lease_all_is_written_and_the_lease_itself_at_any_time() -> None:
    async def scenario(kube: Kube, _: Observed) -> None:
        kube.guard_writes(lambda: 5)
        await kube.create_event(EVENT)
        kube.guard_writes(lambda: -1)
        await kube.get_lease("web", "lease")
        await kube.create_lease(LEASE)
        await kube.replace_lease(LEASE)

    arrived, _ = play(scenario)
    assert [request.split()[0] for request in arrived] == ["POST", "GET", "POST", "PUT"]


def test_every_request_is_told_by_verb_resource_and_answer_without_names() -> None:
    async def scenario(kube: Kube, _: Observed) -> None:
        reached = [kube.has_answered]
        await kube.missing_definitions()
        assert [*reached, kube.has_answered] == [False, True]
        [page async for page in kube.list_pages(POLICIES)]
        [page async for page in kube.list_pages(POLICIES, "web")]
        assert await kube.get_cron_job("web", "missing") is None
        await kube.replace_policy_status(POLICY, {})
        await kube.create_event(EVENT)
        [page async for page in kube.list_pages(PODS, "web")]
        with pytest.raises(NotFoundError):
            await kube.replace_lease({"metadata": {"namespace": "web", "name": "missing"}})

    _, observed = play(scenario)
    assert observed == [
        ("get", "discovery", "200"),
        ("list", "sessionpolicies", "200"),
        ("list", "sessionpolicies", "200"),
        ("get", "cronjobs", "404"),
        ("patch", "sessionpolicies/status", "200"),
        ("create", "events", "200"),
        ("list", "pods", "200"),
        ("update", "leases", "404"),
    ]


def test_a_request_without_answer_is_told_too() -> None:
    observed: Observed = []

    async def scenario() -> None:
        configuration = client.Configuration(host=f"http://127.0.0.1:{free_port()}")
        configuration.retries = None
        kube = Kube(client.ApiClient(configuration), lambda *seen: observed.append(seen))
        try:
            with pytest.raises(UnavailableError):
                await kube.get_policy("web", "shop")
            assert not kube.has_answered
        finally:
            await kube.close()

    asyncio.run(scenario())
    assert observed == [("get", "sessionpolicies", "error")]


def test_the_definitions_that_are_missing_are_named() -> None:
    async def scenario(kube: Kube, _: Observed) -> None:
        assert await kube.missing_definitions() == [
            "sessionpolicies.sessionpolicy.dev",
            "sessionrevocations.sessionpolicy.dev",
        ]

    play(scenario)


def test_what_does_not_answer_is_named_also_when_it_is_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    async def scenario(kube: Kube, _: Observed) -> None:
        with pytest.raises(UnavailableError, match=f"cannot reach the API server at 127.0.0.1:{port} "):
            await kube.get_policy("web", "shop")

    assert play(scenario) == ([], [("get", "sessionpolicies", "error")])
