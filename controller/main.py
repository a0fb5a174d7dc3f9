"""The ``session-policy-controller`` command."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from typing import Any, Final, cast

import kopf
import prometheus_client
import structlog

from controller.api.kube import Kube, NoClusterError
from controller.controller import Controller
from controller.handlers import operator_registry
from controller.kopf_settings import kopf_settings
from controller.metrics.controller_metrics import Metrics
from controller.runtime.http_server import HttpServer
from controller.runtime.leader_election import LeaderElector, Leadership, SoleLeader
from controller.runtime.log_format import configure_logs
from controller.settings.controller_settings import LeaderElection, Settings
from controller.settings.environment import InvalidSettingsError
from controller.tracing.interface import Tracing, open_tracing
from policy.exit_codes import EXIT_BAD_CONFIGURATION, EXIT_FAILED

log = structlog.get_logger("controller.main")

# Whatever hangs, the process ends before the 30 seconds are over that Kubernetes gives it.
_STOP_SECONDS: Final = 25


class Operator:
    """One controller process: waits until it holds the lease, and works until it is stopped or has lost it."""

    def __init__(self, kube: Kube, settings: Settings, metrics: Metrics, tracing: Tracing) -> None:
        self._settings = settings
        self._elector = _elector(kube, settings.election)
        leadership: Leadership = self._elector or SoleLeader()
        kube.guard_writes(leadership.seconds_left)
        metrics.watch_leadership(leadership.seconds_left)
        self._controller = Controller(kube, settings, metrics, leadership, tracing)
        self._working = asyncio.Event()
        self._stopping = asyncio.Event()
        self._server = HttpServer(metrics.registry, self._is_alive, lambda: kube.has_answered)

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT, or until another controller has the lease; return the exit code."""
        self._handle_signals()
        port = self._settings.http_port
        try:
            await self._server.start(port)
        except OSError as error:
            log.error("cannot listen for HTTP; is the port in use?", port=port, error=str(error))
            return EXIT_FAILED
        closing = asyncio.create_task(self._close_server_when_stopping(), name="stop of the HTTP server")
        try:
            return await self._lead_and_work()
        finally:
            self._stop()
            await closing

    async def _lead_and_work(self) -> int:
        if self._elector is None:
            await self._work()
            return 0
        if not await self._is_elected(self._elector):
            return 0
        holding = asyncio.create_task(self._elector.renew(), name="lease")
        holding.add_done_callback(lambda _: self._stop())
        try:
            await self._work()
        finally:
            # Held until the last write is done, and released before anything else.
            lost = holding.done()
            holding.cancel()
            await asyncio.wait([holding])
            await self._elector.release()
        if lost:
            holding.result()
        return EXIT_FAILED if lost else 0

    async def _is_elected(self, elector: LeaderElector) -> bool:
        """Wait for the lease; False if the process is stopped meanwhile."""
        acquiring = asyncio.create_task(elector.acquire(), name="election")
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        await asyncio.wait([acquiring, stopping], return_when=asyncio.FIRST_COMPLETED)
        elected = acquiring.done()
        for task in (acquiring, stopping):
            task.cancel()
        await asyncio.wait([acquiring, stopping])
        if elected:
            acquiring.result()
        return elected

    async def _work(self) -> None:
        """Watch and reconcile until it is time to stop."""
        # Kopf ends every task that is not in here; those of HTTP requests end with the server.
        existing = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=operator_registry(self._controller),
            settings=kopf_settings(),
            # Kopf would ask for the user's name, and a container's numeric user has none. Its own type is not public.
            identity=cast("Any", socket.gethostname()),
            clusterwide=not self._settings.watch_namespaces,
            namespaces=self._settings.watch_namespaces,
            ready_flag=self._working,
            stop_flag=self._stopping,
        )
        self._handle_signals()  # Kopf has put its own in their place
        await kopf.run_tasks(tasks, ignored=existing)

    async def _close_server_when_stopping(self) -> None:
        await self._stopping.wait()
        await self._server.close()

    def _is_alive(self) -> bool:
        return not self._working.is_set() or self._controller.is_healthy()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)

    def _stop(self) -> None:
        if not self._stopping.is_set():
            # The system's, because what hangs may be the event loop or a thread that the interpreter waits for.
            signal.alarm(_STOP_SECONDS)
            self._stopping.set()


def _elector(kube: Kube, election: LeaderElection | None) -> LeaderElector | None:
    if election is None:
        return None
    # The container may be restarted within its Pod: two processes would share the Pod's name.
    identity = f"{election.pod_name}_{secrets.token_hex(4)}"
    return LeaderElector(kube, election.lease_namespace, election.lease_name, identity)


async def run_operator(settings: Settings) -> int:
    """Connect and run; return the exit code.

    Raises:
        NoClusterError: there is neither a service account nor a kubeconfig.
    """
    # Without this, each counter has a second series, with the time of the process's start; nobody reads it.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    metrics = Metrics()
    kube = await Kube.connect(metrics.api_request)
    tracing = open_tracing(os.environ, log)
    try:
        return await Operator(kube, settings, metrics, tracing).run()
    finally:
        await kube.close()
        tracing.close()  # last: it takes time, and the next leader waits for all before


def main() -> None:
    """Entry point.

    Exit code 0 after SIGTERM or SIGINT, 2 for a bad configuration, 1 for everything else, where a restart may help: the
    lease was lost, the port is in use, an unexpected error.
    """
    try:
        settings = Settings.from_environment(os.environ)
    except InvalidSettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_BAD_CONFIGURATION)
    configure_logs(settings.log_level)
    try:
        sys.exit(asyncio.run(run_operator(settings)))
    except NoClusterError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_BAD_CONFIGURATION)
