"""The API server for tests that look at it many times a second: kubectl would start a process for each look."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kubernetes import client, config

from policy.names import GROUP, PLURAL, REVOCATION_PLURAL, VERSION
from tests.support.patience import PATIENCE_SECONDS

_ROOTS = {
    "spol": f"/apis/{GROUP}/{VERSION}",
    "srev": f"/apis/{GROUP}/{VERSION}",
    "cronjobs": "/apis/batch/v1",
    "jobs": "/apis/batch/v1",
    "pods": "/api/v1",
    "events": "/api/v1",
}


class Api:
    """Reads objects, and writes what a kubelet would."""

    def __init__(self, kubeconfig: Path) -> None:
        self._client = _client(kubeconfig)

    def get(self, resource: str, namespace: str, name: str) -> dict[str, Any] | None:
        """One object, or None."""
        return self._request("GET", f"{_collection(resource, namespace)}/{name}")

    def list(self, resource: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """The objects of a kind that have these labels."""
        found = self._request("GET", f"{_collection(resource, namespace)}?labelSelector={quote(selector)}")
        assert found is not None
        items: list[dict[str, Any]] = found["items"]
        return items

    def patch_status(self, resource: str, namespace: str, name: str, status: dict[str, Any]) -> None:
        """Merge this into the object's status."""
        path = f"{_collection(resource, namespace)}/{name}/status"
        assert self._request("PATCH", path, {"status": status}) is not None, f"{resource} {name} is gone"

    def _request(self, method: str, path: str, body: Any = None) -> dict[str, Any] | None:
        headers = {"Accept": "application/json", "Content-Type": "application/merge-patch+json"}
        url = self._client.configuration.host + path
        response = self._client.rest_client.request(method, url, headers, body, _request_timeout=PATIENCE_SECONDS)
        answer: dict[str, Any] = json.loads(response.read())
        if response.status == 404:
            return None
        assert response.status < 300, answer.get("message")
        return answer


@lru_cache(maxsize=4)
def _client(kubeconfig: Path) -> client.ApiClient:
    # To read certificates and to shake hands for each policy of each test takes longer than the rest.
    made: client.ApiClient = config.new_client_from_config(str(kubeconfig))
    return made


def _collection(resource: str, namespace: str) -> str:
    plural = {"spol": PLURAL, "srev": REVOCATION_PLURAL}.get(resource, resource)
    return f"{_ROOTS[resource]}/namespaces/{namespace}/{plural}"
