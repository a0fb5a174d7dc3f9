"""The ``session-policy-controller`` command."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any, Final, cast

import kopf

from controller.controller import Controller
from controller.handlers import operator_registry
from controller.kube import Kube, NoClusterError
from controller.logs import configure_logs
from controller.settings import InvalidSettingsError, Settings
from policy.names import POLICY_LABEL

_EXIT_BAD_CONFIGURATION: Final = 2


class Backoffs:
    """Delays between attempts of a request, in seconds: growing, then steady, never ending.

    Kopf ends the process when its delays are used up. An API server that is away for an hour is no reason for that.
    """

    def __iter__(self) -> Iterator[float]:
        """Begin anew for each request."""
        delay = 0.5
        while True:
            yield delay
            delay = min(delay * 2, 15.0)


def kopf_settings() -> kopf.OperatorSettings:
    """Kopf's settings, where its defaults do not suit."""
    settings = kopf.OperatorSettings()
    # Events are posted by this controller itself, through the same client and its time-outs.
    settings.posting.enabled = False
    # Without watching CRDs and namespaces, the operator needs no rights on them. It waits for its CRD before it starts.
    settings.scanning.disabled = True
    # One replica; another operator on the cluster is none of its business.
    settings.peering.standalone = True
    # The default of five minutes would hide an API server that hangs.
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = Backoffs()
    # A watch that hears nothing for this long, not even a bookmark, is dead; it is stated because outcomes rely on it.
    settings.watching.inactivity_timeout = 70
    # Filtered by the server: foreign Jobs and Pods never reach this process.
    for resource in (("batch", "cronjobs"), ("batch", "jobs"), ("", "pods")):
        settings.watching.label_selectors[resource] = POLICY_LABEL
    settings.watching.chunk_size = 500
    # Within a Pod's usual grace of 30 seconds.
    settings.process.ultimate_exiting_timeout = 20
    return settings


async def run_operator(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    kube = await Kube.connect()
    try:
        await kopf.operator(
            registry=operator_registry(Controller(kube, settings)),
            settings=kopf_settings(),
            # Kopf would ask for the user's name, and a container's numeric user has none. Its own type is not public.
            identity=cast("Any", socket.gethostname()),
            clusterwide=not settings.watch_namespaces,
            namespaces=settings.watch_namespaces,
            liveness_endpoint=f"http://0.0.0.0:{settings.health_port}/healthz",
        )
    finally:
        await kube.close()


def main() -> None:
    """Entry point. Exit code 2 for a bad configuration."""
    try:
        settings = Settings.from_environment(os.environ)
    except InvalidSettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(_EXIT_BAD_CONFIGURATION)
    configure_logs(settings.log_level)
    try:
        asyncio.run(run_operator(settings))
    except NoClusterError as error:
        print(error, file=sys.stderr)
        sys.exit(_EXIT_BAD_CONFIGURATION)
