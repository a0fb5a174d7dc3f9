"""Creates Kubernetes Events, and logs them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import structlog

from controller.api.kube import AlreadyExistsError, Kube, KubeError, NotFoundError, Resource
from controller.status.events import PolicyEvent, build_event
from policy.names import KIND

log = structlog.get_logger("controller.status.events")


async def post_events(
    kube: Kube, resource: Resource, happened: Iterable[PolicyEvent], now: datetime, kind: str = KIND
) -> None:
    """Log what happened to a resource and create an Event for each.

    An Event that cannot be created is logged and not retried.
    """
    metadata = resource["metadata"]
    for event in happened:
        trace = {"trace_id": event.trace_id} if event.trace_id else {}
        names = {"kind": kind, "name": metadata["name"], "namespace": metadata["namespace"]}
        log.info(event.message, reason=event.reason, **names, **trace)
        try:
            await kube.create_event(build_event(resource, event, now, kind))
        except (AlreadyExistsError, NotFoundError):
            pass  # created by the leader before, or the namespace is being deleted
        except KubeError as error:
            log.warning("event not created", reason=event.reason, error=str(error))
