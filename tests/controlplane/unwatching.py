"""A controller whose watches tell nothing: what it knows it has from lists, answers, and what a test tells it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes.aio import client, config

from controller.api.kube import Kind, Kube
from controller.controller import Controller
from controller.metrics.controller_metrics import Metrics
from controller.runtime.leader_election import SoleLeader
from controller.settings.controller_settings import Settings
from controller.tracing.interface import NoTracing
from policy.names import FIELD_MANAGER
from tests.controlplane.controller_process import JOB_IMAGE
from tests.support.kube import eventually


class UnwatchingController:
    """The controller without Kopf, in a thread of its own; use `unwatching_controller()`."""

    def __init__(self, kubeconfig: Path, namespace: str, resync_seconds: int) -> None:
        self._kubeconfig = kubeconfig
        self._settings = Settings(job_image=JOB_IMAGE, watch_namespaces=(namespace,), resync_seconds=resync_seconds)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._controller: Controller | None = None
        self._stopping: asyncio.Event | None = None

    def tell(self, kind: Kind, body: dict[str, Any], *, deleted: bool = False) -> None:
        """What a watch would."""
        assert self._loop is not None
        assert self._controller is not None
        done = threading.Event()

        def see() -> None:
            assert self._controller is not None
            self._controller.on_event(kind, body, deleted=deleted)
            done.set()

        self._loop.call_soon_threadsafe(see)
        assert done.wait(10)

    def deleted_jobs(self, namespace: str, label: str) -> int:
        """How many deleted Jobs it keeps for a policy."""
        assert self._controller is not None
        return len(self._controller._cache._job_tombstones.get((namespace, label), {}))

    def run(self) -> None:
        """Work until `stop`."""
        asyncio.run(self._work())

    def stop(self) -> None:
        """Stop working."""
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)

    def is_started(self) -> bool:
        """Whether it works, and has listed everything once."""
        return self._controller is not None and bool(self._controller._listed)

    async def _work(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        configuration = client.Configuration()
        configuration.disable_strict_ssl_verification = True
        await config.load_kube_config(str(self._kubeconfig), client_configuration=configuration)
        configuration.retries = None
        api = client.ApiClient(configuration)
        api.user_agent = FIELD_MANAGER
        kube = Kube(api)
        try:
            self._controller = Controller(kube, self._settings, Metrics(), SoleLeader(), NoTracing())
            await self._controller.start()
            await self._stopping.wait()
            await self._controller.stop()
        finally:
            await kube.close()


@contextmanager
def unwatching_controller(kubeconfig: Path, namespace: str, resync_seconds: int) -> Iterator[UnwatchingController]:
    """Runs one for a namespace."""
    controller = UnwatchingController(kubeconfig, namespace, resync_seconds)
    thread = threading.Thread(target=controller.run, name="unwatching controller")
    thread.start()
    try:
        eventually(controller.is_started, what="the controller works")
        yield controller
    finally:
        controller.stop()
        thread.join(20)
    assert not thread.is_alive()
