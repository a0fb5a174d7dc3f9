"""Objects as the cache holds them: without the fields that the controller never reads, and compressed.

A cluster may have tens of thousands of finished Jobs and their Pods. As Python dictionaries each would take some tens
of kilobytes, mostly for a Pod template that is the same in all.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from controller.api.kube import JOBS, PODS, POLICIES, Kind, Resource

Body = Mapping[str, Any]

_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


def compress(kind: Kind, body: Body) -> bytes:
    """The object as compressed JSON, with all that the controller reads of its kind."""
    trim = _TRIM.get(kind)
    text = json.dumps(trim(body) if trim else body, separators=(",", ":"), ensure_ascii=False)
    return zlib.compress(text.encode(errors="surrogatepass"))


def decompress(compressed: bytes) -> Resource:
    """The object that was compressed. Each call makes a new one."""
    resource: Resource = json.loads(zlib.decompress(compressed).decode(errors="surrogatepass"))
    return resource


def _trim_policy(body: Body) -> dict[str, Any]:
    return {**body, "metadata": _metadata(body)}


def _trim_job(body: Body) -> dict[str, Any]:
    """The Job without its template, but for the container's name, image and variables."""
    template = {"spec": {"containers": [_only(c, "name", "image", "env") for c in _containers(_template(body))]}}
    return {**body, "metadata": _metadata(body), "spec": {**(body.get("spec") or {}), "template": template}}


def _trim_pod(body: Body) -> dict[str, Any]:
    """The Pod without its spec, but for images and node."""
    spec = {**_only(body.get("spec") or {}, "nodeName"), "containers": []}
    spec["containers"] = [_only(c, "name", "image") for c in _containers(body)]
    return {**body, "metadata": _metadata(body), "spec": spec}


def _metadata(body: Body) -> dict[str, Any]:
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    annotations = metadata.get("annotations")
    if annotations and _LAST_APPLIED in annotations:
        metadata["annotations"] = {key: value for key, value in annotations.items() if key != _LAST_APPLIED}
    return metadata


def _template(body: Body) -> Body:
    template: Body = (body.get("spec") or {}).get("template") or {}
    return template


def _containers(body: Body) -> list[Body]:
    containers: list[Body] = (body.get("spec") or {}).get("containers") or []
    return containers


def _only(body: Body, *keys: str) -> dict[str, Any]:
    return {key: body[key] for key in keys if key in body}


# CronJobs are kept whole: drift is detected from their managedFields.
_TRIM: Final[Mapping[Kind, Callable[[Body], dict[str, Any]]]] = {
    POLICIES: _trim_policy,
    JOBS: _trim_job,
    PODS: _trim_pod,
}
