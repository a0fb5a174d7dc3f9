"""What the API server was asked, by its own audit log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        # Only service accounts matter: the operator is one.
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}
"""How the API server is to log: one line for each request of a service account, without contents."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request that was answered.

    Attributes:
        verb: get, list, watch, create, patch, ...
        resource: plural, with the subresource: ``sessionpolicies/status``.
        name: the object's; empty for a collection.
    """

    verb: str
    resource: str
    name: str


class AuditLog:
    """Reads the API server's audit log."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> Iterator[dict[str, Any]]:
        """What is in it, as the API server wrote it; what has been answered is in it."""
        with self._path.open() as lines:
            for line in lines:
                if line.endswith("\n"):  # else it is still being written
                    yield json.loads(line)

    def requests(self, namespace: str, user_agent: str) -> list[Request]:
        """The requests that one client made in a namespace, without its watches."""
        found: list[Request] = []
        for entry in self.entries():
            what = entry.get("objectRef") or {}
            mine = what.get("namespace") == namespace and entry.get("userAgent") == user_agent
            if mine and entry["verb"] != "watch":
                found.append(Request(entry["verb"], resource_of(what), what.get("name", "")))
        return found


def resource_of(reference: Mapping[str, Any]) -> str:
    """Plural of what a request was about, with the subresource if it was one."""
    return "/".join(part for part in (reference["resource"], reference.get("subresource")) if part)
