"""An application in its namespace: its sessions, its policy, and what is told of them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.stores import Store
from tests.support.kube import Kubectl, eventually

POLICY = "shop"
SECRET = "shop-stores"  # the name of a Kubernetes Secret
RESOURCE = "sessionpolicies.sessionpolicy.dev"
MAX_CONCURRENT = 3
TTL_SECONDS = 1800


@dataclass(frozen=True)
class Session:
    """A session as the application keeps it: a row, a Redis key and an entry in its user's index."""

    user: str
    idle_seconds: int = 10
    in_database: bool = True
    ttl: bool = True
    id: str = field(default_factory=lambda: secrets.token_hex(32))


@dataclass(frozen=True)
class Seeded:
    """What was put into the stores, by what must become of it."""

    live: list[Session]
    expired: list[Session]
    evicted: list[Session]
    orphaned: list[Session]

    def __iter__(self) -> Iterator[Session]:
        return iter([*self.live, *self.expired, *self.evicted, *self.orphaned])


@dataclass(frozen=True)
class Application:
    """The application's namespace, with its stores' tables and the Secret of their URLs."""

    kubectl: Kubectl
    namespace: str
    store: Store

    @classmethod
    def prepare(cls, kubectl: Kubectl, namespace: str, store: Store, job_image: str) -> Application:
        """Make the Secret, and the tables with `session-policy init`."""
        application = cls(kubectl, namespace, store)
        kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": SECRET},
                "stringData": {"database": store.database_url, "redis": store.redis_url},
            },
            namespace,
        )
        kubectl.apply(_init_pod(job_image), namespace)
        kubectl.run(
            *("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/init", "-n", namespace),
            "--timeout=60s",
        )
        return application

    def seed(self) -> Seeded:
        """Fill the stores: live, expired and orphaned sessions, and a user over the limit."""
        seeded = Seeded(
            live=[Session(f"user-{n % 20}", ttl=n % 10 != 0) for n in range(40)]
            + [Session("greedy", idle_seconds=10 + n) for n in range(MAX_CONCURRENT)],
            expired=[Session(f"user-{n % 20}", idle_seconds=2 * TTL_SECONDS) for n in range(60)],
            evicted=[Session("greedy", idle_seconds=600 + n) for n in range(2)],
            orphaned=[Session("gone", idle_seconds=3 * TTL_SECONDS, in_database=False) for _ in range(7)],
        )
        self.store.sql(
            "\n".join(
                "INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at) VALUES "
                f"('{s.id}', '{s.user}', now() - interval '3 hours', now() - interval '{s.idle_seconds} s');"
                for s in seeded
                if s.in_database
            )
        )
        now = int(time.time())
        commands = []
        for session in seeded:
            content = json.dumps(
                {
                    "userId": session.user,
                    "createdAt": now - 10800,
                    "lastAccessedAt": now - session.idle_seconds,
                }
            )
            commands.append(f"SET sess:{session.id} '{content}'")
            if session.ttl:
                commands.append(f"EXPIRE sess:{session.id} 86400")
            commands.append(f"SADD user_sess:{session.user} {session.id}")
        self.store.redis(*commands)
        return seeded

    def apply_policy(self, **spec: Any) -> None:
        """Apply the policy with kubectl; the schedule is far away unless given."""
        self.kubectl.apply(
            {
                "apiVersion": "sessionpolicy.dev/v1alpha1",
                "kind": "SessionPolicy",
                "metadata": {"name": POLICY},
                "spec": {
                    "schedule": "0 0 29 2 *",
                    "sessionTimeoutSeconds": TTL_SECONDS,
                    "maxConcurrentSessions": MAX_CONCURRENT,
                    "stores": {
                        "database": {"urlFrom": {"secretKeyRef": {"name": SECRET, "key": "database"}}},
                        "redis": {
                            "urlFrom": {"secretKeyRef": {"name": SECRET, "key": "redis"}},
                            "keys": {"session": "sess:{id}", "userIndex": "user_sess:{user}"},
                        },
                    },
                    "sync": {"graceSeconds": 1},
                    **spec,
                },
            },
            self.namespace,
        )

    def wait_for(self, condition: str, timeout_seconds: int = 120) -> None:
        """What a person would type: kubectl wait."""
        self.kubectl.run(
            *("wait", f"--for=condition={condition}", f"{RESOURCE}/{POLICY}", "-n", self.namespace),
            f"--timeout={timeout_seconds}s",
            timeout_seconds=timeout_seconds + 30,
        )

    def request_run(self) -> dict[str, Any]:
        """Ask for a run by annotation; the record of that run."""
        token = secrets.token_hex(4)
        recorded = {run["jobUID"] for run in self.policy().get("status", {}).get("history", [])}
        self.kubectl.run(
            *("annotate", RESOURCE, POLICY, f"sessionpolicy.dev/run-requested-at={token}"),
            *("-n", self.namespace, "--overwrite"),
        )

        def record() -> dict[str, Any] | None:
            status = self.policy().get("status", {})
            run: dict[str, Any] | None = status.get("lastRun")
            if status.get("lastHandledRunRequest") != token or run is None or run["jobUID"] in recorded:
                return None
            return run if run["trigger"] == "Request" else None

        return eventually(record, timeout_seconds=120, what=f"run {token} recorded in {self.policy()}")

    def policy(self) -> dict[str, Any]:
        """The policy as stored."""
        return self.kubectl.get(RESOURCE, POLICY, self.namespace)

    def cron_job(self) -> dict[str, Any]:
        """The CronJob made from the policy."""
        return self.kubectl.get("cronjob", self.policy()["status"]["cronJobName"], self.namespace)

    def database_ids(self) -> set[str]:
        """Session ids in the database."""
        return set(self.store.sql("SELECT session_id FROM sessions"))

    def redis_ids(self) -> set[str]:
        """Session ids in Redis."""
        return {key.removeprefix("sess:") for key in self.store.redis("KEYS sess:*")}

    def indexed_ids(self) -> set[str]:
        """Session ids in the users' indexes."""
        indexes = self.store.redis("KEYS user_sess:*")
        return set(self.store.redis(f"SUNION {' '.join(indexes)}")) if indexes else set()

    def keys_without_ttl(self) -> set[str]:
        """Session keys that would stay for ever."""
        keys = self.store.redis("KEYS sess:*")
        answers = self.store.redis(*(f"TTL {key}" for key in keys))
        return {key for key, ttl in zip(keys, answers, strict=True) if int(ttl) == -1}

    def everything_told(self) -> str:
        """All that others can read of a run: pod logs, policy, Jobs, Pods and Events."""
        logs = [
            self.kubectl.run("logs", pod, "-n", self.namespace) for pod in self.kubectl.names("pods", self.namespace)
        ]
        kinds = f"{RESOURCE},cronjobs,jobs,pods,events"
        return "\n".join([*logs, self.kubectl.run("get", kinds, "-n", self.namespace, "-o", "yaml")])


def _init_pod(image: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "init"},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "init",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "args": ["init"],
                    "env": [
                        {
                            "name": "DATABASE_URL",
                            "valueFrom": {"secretKeyRef": {"name": SECRET, "key": "database"}},
                        }
                    ],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }
