"""Somebody else with rights on the cluster, who changes objects by hand or with another tool."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from kubernetes import client, config

from policy.names import API_VERSION, RUN_REQUEST_ANNOTATION
from tests.support.patience import PATIENCE_SECONDS

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

_COLLECTIONS = {
    "sessionpolicies": f"/apis/{API_VERSION}",
    "cronjobs": "/apis/batch/v1",
    "jobs": "/apis/batch/v1",
    "pods": "/api/v1",
    "resourcequotas": "/api/v1",
}


class RefusedError(Exception):
    """The API server did not take the change; the message holds its own words."""


class Somebody:
    """Writes under a field manager's name of their own; one request for each call, no process started."""

    def __init__(self, kubeconfig: Path, manager: str = "somebody") -> None:
        self._client: client.ApiClient = config.new_client_from_config(str(kubeconfig))
        self.manager = manager

    def change(
        self, resource: str, namespace: str, name: str, operations: Sequence[dict[str, Any]], manager: str = ""
    ) -> dict[str, Any]:
        """Send a JSON patch and return the object as stored.

        Raises:
            RefusedError: the API server found it invalid.
        """
        return self._send("PATCH", _path(resource, namespace, name), JSON_PATCH, list(operations), manager)

    def merge(self, resource: str, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a merge patch and return the object as stored."""
        return self._send("PATCH", _path(resource, namespace, name), MERGE_PATCH, body)

    def replace(self, resource: str, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """Write the whole object, as an editor does."""
        return self._send("PUT", _path(resource, namespace, name), "application/json", body)

    def create(self, resource: str, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create an object."""
        return self._send("POST", _path(resource, namespace), "application/json", body)

    def delete(self, resource: str, namespace: str, name: str) -> None:
        """Delete an object."""
        self._send("DELETE", _path(resource, namespace, name), "application/json", None)

    def request_run(self, namespace: str, policy: str, token: str) -> None:
        """Ask for a run of a policy."""
        annotations = {RUN_REQUEST_ANNOTATION: token}
        self.merge("sessionpolicies", namespace, policy, {"metadata": {"annotations": annotations}})

    def _send(self, method: str, path: str, content_type: str, body: Any, manager: str = "") -> dict[str, Any]:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        query = urlencode({"fieldManager": manager or self.manager})
        url = f"{self._client.configuration.host}{path}?{query}"
        response = self._client.rest_client.request(method, url, headers, body, _request_timeout=PATIENCE_SECONDS)
        answer: dict[str, Any] = json.loads(response.read())
        if response.status in (400, 422):
            raise RefusedError(answer.get("message"))
        assert response.status < 300, answer
        return answer


def _path(resource: str, namespace: str, name: str = "") -> str:
    return f"{_COLLECTIONS[resource]}/namespaces/{namespace}/{resource}" + (f"/{quote(name)}" if name else "")
