"""A collector in a pod of the cluster: it writes what it gets to its log, and the test decodes that here."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from tests.support.kube import Kubectl
from tests.support.otlp import Collector

POD = "collector"
PORT = 4318

_PROGRAM = f"""
import base64, http.server

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print(self.path, base64.b64encode(body).decode(), flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("", {PORT}), Handler).serve_forever()
"""


@dataclass(frozen=True)
class ClusterCollector:
    """The pod."""

    kubectl: Kubectl
    namespace: str
    endpoint: str

    @classmethod
    def start(cls, kubectl: Kubectl, namespace: str, image: str) -> ClusterCollector:
        """Start it and wait until it answers.

        Args:
            kubectl: on the cluster.
            namespace: where.
            image: any with a Python.
        """
        kubectl.apply(_pod(image), namespace)
        kubectl.run("wait", "--for=condition=Ready", f"pod/{POD}", "-n", namespace, "--timeout=120s")
        address = kubectl.get("pod", POD, namespace)["status"]["podIP"]
        return cls(kubectl, namespace, f"http://{address}:{PORT}")

    def received(self) -> Collector:
        """What has come in so far."""
        lines = [line.split(" ") for line in self.kubectl.run("logs", POD, "-n", self.namespace).splitlines()]
        return Collector(self.endpoint, bodies=[(path, base64.b64decode(body)) for path, body in lines])


def _pod(image: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": POD,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python3", "-c", _PROGRAM],
                    "readinessProbe": {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1},
                }
            ],
        },
    }
