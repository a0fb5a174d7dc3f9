"""What the picture of the dashboard shows: three policies on a real API server, with a real controller.

A real Prometheus scrapes the controller. Two policies clean up real stores, whose application goes on making sessions;
the third cannot reach its database. Runs are asked for one after the other: minutes stand for days.
"""

from __future__ import annotations

import json
import math
import secrets
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from job.demo.servers import EmbeddedPostgres, EmbeddedRedis
from policy.names import JOB_UID_ENV
from tests.controlplane.controller_process import ControllerProcess
from tests.controlplane.kubelet import Kubelet
from tests.controlplane.policies import Policies, Policy
from tests.support.chart import CHART
from tests.support.controlplane import ControlPlane
from tests.support.helm import helm
from tests.support.kube import Kubectl
from tests.support.operator_access import grant_operator_access, serve_policies
from tests.support.runs import SECRET, command
from tests.support.session_stores import HOUR, SessionStores
from tools.pictures.dashboard import Answers, dashboard, queries_of
from tools.pictures.prometheus import prometheus

NAMESPACE = "web"
ROUNDS = 12
NOWHERE = "postgresql://nobody@127.0.0.1:9/wiki"
WITHOUT_A_PAUSE = {"attempts": 1, "delaySeconds": 0}
SPEC: Mapping[str, Any] = {
    "schedule": "50 * * * *",
    "job": {"retries": 0},
    "safety": {"maxDeletePercent": 100},
    "retries": {"deletion": WITHOUT_A_PAUSE, "database": WITHOUT_A_PAUSE, "redis": WITHOUT_A_PAUSE},
}
KEYS = {"session": "sess:{id}", "userIndex": "user_sess:{user}", "accessLog": "access_log:{id}"}
DATABASE = {"database": {"urlFrom": SECRET}}
SPECS: Mapping[str, Mapping[str, Any]] = {
    "shop": {
        **SPEC,
        "stores": {**DATABASE, "redis": {"urlFrom": SECRET, "keys": KEYS}},
        "alerts": {"thresholds": {"activeSessions": 700, "redisMemoryMegabytes": 4, "cacheHitPercent": 60}},
    },
    "bank": {**SPEC, "stores": DATABASE, "safety": {"maxDeletePercent": 100, "maxDeletions": 50}},
    "wiki": {**SPEC, "stores": DATABASE},
}


class Application:
    """Makes sessions, looks some of them up, and leaves some to expire."""

    def __init__(self, stores: SessionStores, scale: int) -> None:
        self._stores = stores
        self._scale = scale

    def work(self, number: int) -> None:
        """One stretch of time: busy at noon, quiet at night."""
        busy = int(self._scale * (1.2 + math.sin(number / ROUNDS * 2 * math.pi)))
        names = [(f"{secrets.token_hex(32)}", f"u{secrets.randbelow(busy)}") for _ in range(busy)]
        due, live = names[: busy // 2], names[busy // 2 :]
        self._stores.add_many(due, began=HOUR + 900 + 60 * number, used=HOUR)
        self._stores.add_many(live, began=0, used=0)
        if self._stores.redis_url:
            for session, user in names:
                self._stores.add_key(session, user, used=None)
                self._stores.redis.get(f"sess:{session}")
            for n in range(busy // 2):
                self._stores.redis.get(f"sess:nobody-{n}")


def dashboard_scene() -> tuple[dict[str, Any], Answers]:
    """The dashboard, and what its queries yield after some rounds of runs."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres, redis = stack.enter_context(EmbeddedPostgres()), stack.enter_context(EmbeddedRedis())
        shop = SessionStores(postgres.url, redis.url)
        bank = SessionStores(f"sqlite:///{folder / 'bank.db'}")
        for stores in (shop, bank):
            stack.callback(stores.close)
        kubectl, controller = _operator(stack, folder)
        policies = {name: Policies(kubectl, NAMESPACE).ready(name, **spec) for name, spec in SPECS.items()}
        applications = (Application(shop, 260), Application(bank, 120))
        urls: dict[str, tuple[str, str | None]] = {
            "shop": (shop.database_url, shop.redis_url),
            "bank": (bank.database_url, None),
            "wiki": (NOWHERE, None),
        }
        labels = {"job": "session-policy/session-policy", "namespace": "session-policy", "pod": "session-policy-0"}
        target = f"127.0.0.1:{controller.http_port}"
        server = stack.enter_context(prometheus(folder, target, labels))
        start = time.time()
        for number in range(ROUNDS):
            for application in applications:
                application.work(number)
            for name, policy in policies.items():
                if name != "wiki" or number > ROUNDS // 2:
                    _run(Kubelet(kubectl, NAMESPACE), policy, SPECS[name], folder, *urls[name])
        time.sleep(3)  # for the last scrape
        end = time.time()
        document = dashboard()
        answers: Answers = {}
        for panel, query in queries_of(document):
            is_graph = panel["type"] == "timeseries"
            answers[query] = server.over(query, start, end) if is_graph else server.at(query, end)
        return document, answers


def _operator(stack: ExitStack, folder: Path) -> tuple[Kubectl, ControllerProcess]:
    plane = ControlPlane.start()
    stack.callback(plane.stop)
    kubectl = Kubectl(plane.kubeconfig)
    serve_policies(kubectl)
    kubectl.run("create", "namespace", NAMESPACE)
    installation = helm().render(CHART, {}, name="pictures", namespace="default")
    access = grant_operator_access(kubectl, plane, installation, "default")
    controller = ControllerProcess(access, folder / "controller.log", (NAMESPACE,), {})
    stack.callback(controller.kill)
    controller.start()
    return kubectl, controller


def _run(
    kubelet: Kubelet, policy: Policy, spec: Mapping[str, Any], folder: Path, database: str, redis: str | None
) -> None:
    """A run as the cluster makes it, but for the container: it is a process here."""
    job = policy.request_run()
    found = policy.api.get("jobs", NAMESPACE, job)
    assert found is not None
    manifest = policy.get()
    document = {key: manifest[key] for key in ("apiVersion", "kind", "spec")}
    document["metadata"] = {"name": policy.name, "namespace": NAMESPACE}
    done = command(folder, json.dumps(document), database, redis, environment={JOB_UID_ENV: found["metadata"]["uid"]})
    kubelet.finish(job, done.termination_message, exit_code=done.exit_code)
    policy.await_record(job)
