"""An application in its namespace: its sessions, its policy, and what is told of them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from policy.names import GROUP, PLURAL, POLICY_LABEL, RUN_REQUEST_ANNOTATION
from tests.e2e.stores import Store
from tests.support.kube import Kubectl, eventually

POLICY = "shop"
SECRET = "shop-stores"  # the name of a Kubernetes Secret
RESOURCE = f"{PLURAL}.{GROUP}"
MAX_CONCURRENT = 3
TTL_SECONDS = 1800

# The run's own limits on locks and idle transactions do not end a wait like this; its time limit does.
_GATE = """
CREATE TABLE IF NOT EXISTS gate (is_open boolean);
DELETE FROM gate;
CREATE OR REPLACE FUNCTION wait_for_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  WHILE NOT EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.1); END LOOP;
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER wait_for_gate BEFORE DELETE ON sessions FOR EACH STATEMENT EXECUTE FUNCTION wait_for_gate();
"""

T = TypeVar("T")


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
    """The application's namespace, with its stores' tables and the Secret of their URLs.

    Attributes:
        kubectl: on the cluster.
        namespace: the application's.
        store: where its sessions are.
        name: of its policy.
    """

    kubectl: Kubectl
    namespace: str
    store: Store
    name: str = POLICY

    @classmethod
    def prepare(cls, kubectl: Kubectl, namespace: str, store: Store, job_image: str) -> Application:
        """Make the Secret, and the tables with `session-policy init`."""
        application = cls(kubectl, namespace, store)
        application.make_secret()
        kubectl.apply(_init_pod(job_image), namespace)
        kubectl.run(
            *("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/init", "-n", namespace),
            "--timeout=60s",
        )
        return application

    def make_secret(self) -> None:
        """Make the Secret with the stores' URLs."""
        urls = {"database": self.store.database_url, "redis": self.store.redis_url}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": urls}
        self.kubectl.apply(secret, self.namespace)

    def hold_deletes(self) -> None:
        """Have every deletion from the database wait until `release_deletes`, so that a run goes on as long."""
        self.store.sql(_GATE)

    def release_deletes(self) -> None:
        """Let the deletions go on that `hold_deletes` holds up."""
        self.store.sql("INSERT INTO gate VALUES (true)")

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
                "metadata": {"name": self.name},
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
            *("wait", f"--for=condition={condition}", f"{RESOURCE}/{self.name}", "-n", self.namespace),
            f"--timeout={timeout_seconds}s",
            timeout_seconds=timeout_seconds + 30,
        )

    def request_run(self) -> dict[str, Any]:
        """Ask for a run by annotation; the record of that run."""
        return self.await_run(self.start_run())

    def start_run(self) -> str:
        """Ask for a run by annotation; UID of its Job."""
        token = secrets.token_hex(4)
        before = self._jobs()
        self.kubectl.run(
            *("annotate", RESOURCE, self.name, f"{RUN_REQUEST_ANNOTATION}={token}"),
            *("-n", self.namespace, "--overwrite"),
        )

        def new_job() -> str | None:
            started = self._jobs().keys() - before.keys()
            requested = [uid for uid, job in self._jobs().items() if uid in started and _requested_by(job) == token]
            return requested[0] if requested else None

        return eventually(new_job, what=f"run {token} starts: {self.policy()}")

    def make_job(self) -> str:
        """Start a run without the operator, as `kubectl create job --from` does; UID of the Job."""
        name = f"by-hand-{secrets.token_hex(4)}"
        cron_job = self.cron_job()["metadata"]["name"]
        self.kubectl.run("create", "job", name, f"--from=cronjob/{cron_job}", "-n", self.namespace)
        uid: str = self.kubectl.get("job", name, self.namespace)["metadata"]["uid"]
        return uid

    def await_run(self, job_uid: str) -> dict[str, Any]:
        """The record of a run, once it has ended."""

        def record() -> dict[str, Any] | None:
            return next((run for run in self.history() if run["jobUID"] == job_uid), None)

        return self._await(record, f"the run of Job {job_uid} is recorded")

    def await_job_running(self, job_uid: str) -> None:
        """Wait until a run's container works."""

        def running() -> bool:
            pods = self.kubectl.list("pods", self.namespace, f"batch.kubernetes.io/controller-uid={job_uid}")
            return any(pod["status"].get("phase") == "Running" for pod in pods)

        self._await(running, f"the Pod of Job {job_uid} runs")

    def await_job_end(self, job_uid: str) -> None:
        """Wait until a run's Job has ended, whoever looks after it."""

        def ended() -> bool:
            conditions = self._jobs()[job_uid]["status"].get("conditions", [])
            return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)

        self._await(ended, f"Job {job_uid} ends")

    def await_condition(self, kind: str, status: str | None, reason: str | None = None) -> dict[str, Any]:
        """The condition, once it is so; an empty one, once it is gone, for the status None."""

        def reached() -> dict[str, Any] | None:
            found = self.condition(kind)
            so = found.get("status") == status and reason in (None, found.get("reason"))
            return {"found": found} if so else None

        condition: dict[str, Any] = self._await(reached, f"{kind} is {status}, {reason}")["found"]
        return condition

    def policy(self) -> dict[str, Any]:
        """The policy as stored."""
        return self.kubectl.get(RESOURCE, self.name, self.namespace)

    def status(self) -> dict[str, Any]:
        """The policy's status."""
        status: dict[str, Any] = self.policy().get("status", {})
        return status

    def condition(self, kind: str) -> dict[str, Any]:
        """A condition of the policy; an empty one if it is not there."""
        return next((c for c in self.status().get("conditions", []) if c["type"] == kind), {})

    def history(self) -> list[dict[str, Any]]:
        """The policy's last runs, newest first."""
        runs: list[dict[str, Any]] = self.status().get("history", [])
        return runs

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

    def _jobs(self) -> dict[str, dict[str, Any]]:
        jobs = self.kubectl.list("jobs", self.namespace, f"{POLICY_LABEL}={self.name}")
        return {job["metadata"]["uid"]: job for job in jobs}

    def _await(self, probe: Callable[[], T | None], what: str) -> T:
        try:
            return eventually(probe, timeout_seconds=120, what=what)
        except AssertionError as error:
            error.add_note(json.dumps(self.status(), indent=1))
            error.add_note(self.kubectl.run("describe", "pods", "-n", self.namespace))
            raise

    def everything_told(self) -> str:
        """All that others can read of a run: pod logs, policy, Jobs, Pods and Events."""
        logs = [
            self.kubectl.run("logs", pod, "-n", self.namespace) for pod in self.kubectl.names("pods", self.namespace)
        ]
        kinds = f"{RESOURCE},cronjobs,jobs,pods,events"
        return "\n".join([*logs, self.kubectl.run("get", kinds, "-n", self.namespace, "-o", "yaml")])


def _requested_by(job: dict[str, Any]) -> str | None:
    token: str | None = job["metadata"].get("annotations", {}).get(RUN_REQUEST_ANNOTATION)
    return token


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
