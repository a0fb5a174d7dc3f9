"""PostgreSQL and Redis in a pod of the cluster."""

from __future__ import annotations

import itertools
import secrets
from dataclasses import dataclass, field
from typing import Any

from tests.support.kube import Kubectl

POD = "stores"


@dataclass(frozen=True)
class Store:
    """One empty database and one empty Redis database, and how to look into them from outside the cluster."""

    kubectl: Kubectl
    namespace: str
    address: str
    database: str
    redis_database: int

    @property
    def database_url(self) -> str:
        """The database, as a pod reaches it."""
        return f"postgresql+psycopg://postgres@{self.address}:5432/{self.database}"

    @property
    def redis_url(self) -> str:
        """The Redis database, as a pod reaches it."""
        return f"redis://{self.address}:6379/{self.redis_database}"

    def sql(self, script: str) -> list[str]:
        """Run SQL; the first column of every row of the result."""
        return _exec(
            *(self.kubectl, self.namespace),
            *("psql", "-h", "127.0.0.1", "-U", "postgres", "-d", self.database),
            *("--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"),
            stdin=script,
        )

    def redis(self, *commands: str) -> list[str]:
        """Run Redis commands; the lines they answer."""
        return _exec(
            *(self.kubectl, self.namespace, "redis-cli", "-e", "-n", str(self.redis_database)),
            stdin="\n".join(commands) + "\n",
        )


@dataclass
class Stores:
    """The pod with both servers."""

    kubectl: Kubectl
    namespace: str
    address: str
    _redis_databases: itertools.count[int] = field(default_factory=itertools.count)

    @classmethod
    def start(cls, kubectl: Kubectl, namespace: str, image: str) -> Stores:
        """Start the pod and wait until both servers answer."""
        kubectl.apply(_pod(image), namespace)
        kubectl.run("wait", "--for=condition=Ready", f"pod/{POD}", "-n", namespace, "--timeout=120s")
        return cls(kubectl, namespace, kubectl.get("pod", POD, namespace)["status"]["podIP"])

    def fresh(self) -> Store:
        """An empty database and an empty Redis database."""
        database = f"app_{secrets.token_hex(4)}"
        Store(self.kubectl, self.namespace, self.address, "postgres", 0).sql(f"CREATE DATABASE {database}")
        store = Store(self.kubectl, self.namespace, self.address, database, next(self._redis_databases))
        store.redis("FLUSHDB")
        return store


def _exec(kubectl: Kubectl, namespace: str, *command: str, stdin: str) -> list[str]:
    output = kubectl.run("exec", "-i", POD, "-n", namespace, "--", *command, stdin=stdin)
    return [line for line in output.splitlines() if line]


def _pod(image: str) -> dict[str, Any]:
    both_answer = 'pg_isready -q -h 127.0.0.1 && test "$(redis-cli ping)" = PONG'
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 2,
            "securityContext": {"fsGroup": 65532},
            "containers": [
                {
                    "name": POD,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "readinessProbe": {
                        "exec": {"command": ["sh", "-c", both_answer]},
                        "periodSeconds": 1,
                        "failureThreshold": 60,
                    },
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }
            ],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    }
