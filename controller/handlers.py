"""All Kopf handlers. They pass events on to the controller and decide nothing.

Only ``on.event``: it needs no finalizer and no annotation on any object, so no object is stuck or left with leftovers
when the operator is removed. Kopf does not retry such handlers, which is why they only fill a queue.
"""

from __future__ import annotations

from typing import Any

import kopf

from controller.api.kube import CRON_JOBS, JOBS, PODS, POLICIES, REVOCATIONS
from controller.api.login import login
from controller.controller import Controller
from policy.names import GROUP, PLURAL, REVOCATION_PLURAL, VERSION


def operator_registry(controller: Controller) -> kopf.OperatorRegistry:
    """Kopf's registry with this operator's handlers, delegating to the controller."""
    registry = kopf.OperatorRegistry()

    kopf.on.login(registry=registry)(login)

    @kopf.on.startup(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
    async def startup(**_: Any) -> None:
        await controller.start()

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: Any) -> None:
        await controller.stop()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def policy(event: kopf.RawEvent, **_: Any) -> None:
        controller.on_event(POLICIES, event["object"], deleted=event["type"] == "DELETED")

    @kopf.on.event(GROUP, VERSION, REVOCATION_PLURAL, registry=registry)
    async def revocation(event: kopf.RawEvent, **_: Any) -> None:
        controller.on_event(REVOCATIONS, event["object"], deleted=event["type"] == "DELETED")

    @kopf.on.event("batch", "v1", "cronjobs", registry=registry)
    async def cron_job(event: kopf.RawEvent, **_: Any) -> None:
        controller.on_event(CRON_JOBS, event["object"], deleted=event["type"] == "DELETED")

    @kopf.on.event("batch", "v1", "jobs", registry=registry)
    async def job(event: kopf.RawEvent, **_: Any) -> None:
        controller.on_event(JOBS, event["object"], deleted=event["type"] == "DELETED")

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def pod(event: kopf.RawEvent, **_: Any) -> None:
        controller.on_event(PODS, event["object"], deleted=event["type"] == "DELETED")

    return registry
