"""What the API server was asked, by its own audit log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        # Only service accounts matter: the operator is one.
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"], "resources": [{"group": "*"}, {"group": ""}]},
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

    def requests(self, namespace: str, user_agent: str) -> list[Request]:
        """The requests that one client made in a namespace, without its watches."""
        found: list[Request] = []
        with self._path.open() as lines:
            for line in lines:
                # A line that is being written has no end yet.
                entry = json.loads(line) if line.endswith("\n") else {}
                what = entry.get("objectRef") or {}
                mine = what.get("namespace") == namespace and entry.get("userAgent") == user_agent
                if mine and entry["verb"] != "watch":
                    resource = "/".join(part for part in (what["resource"], what.get("subresource")) if part)
                    found.append(Request(entry["verb"], resource, what.get("name", "")))
        return found
