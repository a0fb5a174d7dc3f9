"""The controller with thousands of policies and finished Jobs, on a real API server.

The control plane, the controller and this script share one machine, so that the seconds say little about another. The
yardsticks are the same writes sent by a bare client in the same run, with nothing decided in between.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil
from prometheus_client.parser import text_string_to_metric_families

from controller.manifests.cronjob import build_cron_job
from controller.settings.controller_settings import Settings
from policy.manifest import parse_policy
from policy.names import GROUP, PLURAL, VERSION
from tests.bench.api_client import ApiClient, at_once
from tests.bench.figures import Figure, quantile
from tests.bench.runs_on_api import RunOnApi
from tests.controlplane.controller_process import JOB_IMAGE, ControllerProcess
from tests.controlplane.policies import manifest
from tests.support.chart import CHART
from tests.support.controlplane import ControlPlane
from tests.support.helm import helm
from tests.support.kube import Kubectl
from tests.support.operator_access import grant_operator_access, serve_policies

Resource = dict[str, Any]

_NAMESPACES: Final = 20
_POLICIES_PATH: Final = f"/apis/{GROUP}/{VERSION}"
_REQUESTS: Final = "session_policy_controller_api_requests"
_MIB: Final = 1024.0**2
_PACE_PER_SECOND: Final = 10
_PATIENCE_SECONDS: Final = 900


def measure(policies: int, jobs: int, log: Path) -> list[Figure]:
    """Run the benchmark.

    Args:
        policies: how many policies there are.
        jobs: how many finished Jobs there are in the end, at most three for each policy.
        log: where the controller writes its log.
    """
    plane = ControlPlane.start()
    try:
        kubectl = Kubectl(plane.kubeconfig)
        serve_policies(kubectl)
        installation = helm().render(CHART, {}, name="bench", namespace="default")
        kubeconfig = grant_operator_access(kubectl, plane, installation, "default")
        return asyncio.run(_Bench(plane, kubeconfig, log, policies, jobs).run())
    finally:
        plane.stop()


class _Bench:
    def __init__(self, plane: ControlPlane, kubeconfig: Path, log: Path, policies: int, jobs: int) -> None:
        self._plane = plane
        self._controller = ControllerProcess(kubeconfig, log, (), {"SESSION_POLICY_LOG_LEVEL": "WARNING"})
        self._names = [(f"bench-{n % _NAMESPACES}", f"policy-{n}") for n in range(policies)]
        self._jobs = jobs
        self._ready: dict[str, float] = {}
        self._recorded: dict[str, float] = {}
        self._figures: list[Figure] = []
        self._most_memory = 0.0

    async def run(self) -> list[Figure]:
        async with ApiClient.to(self._plane) as api:
            self._api = api
            await at_once(self._create_namespace, {namespace for namespace, _ in self._names})
            bare_first, bare_status = await self._bare_writes()
            await at_once(self._create_policy, self._names)
            background = [asyncio.create_task(self._watch()), asyncio.create_task(self._sample_memory())]
            try:
                with self._running():
                    await self._first_reconciles(bare_first)
                    await self._paced_runs(bare_status)
                await self._backlog()
                with self._running():
                    await self._nothing_to_do()
            finally:
                for task in background:
                    task.cancel()
        return self._figures

    @contextmanager
    def _running(self) -> Iterator[None]:
        self._began = time.perf_counter()
        self._most_memory = 0.0
        self._controller.spawn()
        try:
            yield
        finally:
            self._controller.stop()

    async def _bare_writes(self) -> tuple[float, list[float]]:
        """What a first reconciliation writes, sent as fast as the server takes it; then all of it is removed.

        Returns:
            Seconds for all policies, and the seconds that each of as many single status patches took.
        """
        await at_once(self._create_policy, self._names)
        settings = Settings(job_image=JOB_IMAGE)
        single: list[float] = []

        async def write(key: tuple[str, str]) -> None:
            namespace, name = key
            path = f"{_POLICIES_PATH}/namespaces/{namespace}/{PLURAL}/{name}"
            policy = await self._api.request("GET", path)
            condition = {
                "type": "Ready",
                "status": "Unknown",
                "reason": "Progressing",
                "message": "",
                "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "observedGeneration": 1,
            }
            await self._api.request("PATCH", f"{path}/status", {"status": {"conditions": [condition]}})
            cron_job = build_cron_job(parse_policy(policy), policy["metadata"]["uid"], settings)
            await self._api.request("POST", f"/apis/batch/v1/namespaces/{namespace}/cronjobs", cron_job)
            event = {
                "metadata": {"name": f"{name}.bench", "namespace": namespace},
                "involvedObject": {"kind": "SessionPolicy", "name": name, "namespace": namespace},
                "reason": "CronJobCreated",
                "type": "Normal",
            }
            await self._api.request("POST", f"/api/v1/namespaces/{namespace}/events", event)
            began = time.perf_counter()
            await self._api.request("PATCH", f"{path}/status", {"status": {"observedGeneration": 1}})
            single.append(time.perf_counter() - began)

        seconds = await at_once(write, self._names)
        for namespace in {namespace for namespace, _ in self._names}:
            await self._api.request("DELETE", f"{_POLICIES_PATH}/namespaces/{namespace}/{PLURAL}")
            await self._api.request("DELETE", f"/apis/batch/v1/namespaces/{namespace}/cronjobs")
        while (await self._api.request("GET", "/apis/batch/v1/cronjobs?limit=1"))["items"]:
            await asyncio.sleep(0.5)
        return seconds, single

    async def _first_reconciles(self, bare: float) -> None:
        await self._until(lambda: len(self._ready) == len(self._names), "all policies are Ready")
        seconds = max(self._ready.values()) - self._began
        requests = await self._requests_at_rest()
        self._tell(
            f"{len(self._names):,} new policies: start of the controller to all Ready",
            seconds,
            "s",
            yardstick=bare,
            yardstick_is="bare: the same four writes for each policy",
        )
        self._tell(
            "requests for a policy's first reconciliation", _each(requests, self._names), "requests", _by(requests)
        )

    async def _paced_runs(self, bare: list[float]) -> None:
        """One run of each policy, ending at a steady pace; how soon the status tells."""
        runs = await self._runs(0, len(self._names))
        before = await self._requests_at_rest()
        ended: dict[str, float] = {}
        began = time.perf_counter()

        async def play(number: int, run: RunOnApi) -> None:
            await asyncio.sleep(max(0.0, began + number / _PACE_PER_SECOND - time.perf_counter()))
            await run.begin()
            await run.end()
            ended[run.uid] = time.perf_counter()

        await asyncio.gather(*(play(number, run) for number, run in enumerate(runs)))
        await self._until(lambda: all(run.uid in self._recorded for run in runs), "all runs are recorded")
        delays = [self._recorded[uid] - when for uid, when in ended.items()]
        requests = await self._requests_at_rest() - before
        for name, share in (("median", 0.5), ("99th percentile", 0.99)):
            self._tell(
                f"end of a Job to the policy's status, {name}, {_PACE_PER_SECOND} a second",
                quantile(delays, share) * 1000,
                "ms",
                yardstick=quantile(bare, share) * 1000,
                yardstick_is="bare: one status patch, under load",
            )
        self._tell("requests for a run", _each(requests, self._names), "requests", _by(requests))
        self._tell("resident memory after that", self._memory(), "MiB")

    async def _backlog(self) -> None:
        """Runs that ended while the controller was down."""
        runs = await self._runs(1, self._jobs - len(self._names))
        await at_once(RunOnApi.begin, runs)
        await at_once(RunOnApi.end, runs)
        with self._running():
            await self._until(lambda: all(run.uid in self._recorded for run in runs), "the backlog is recorded")
            seconds = max(self._recorded[run.uid] for run in runs) - self._began
            self._tell(f"{len(runs):,} runs ended while it was down: start to all recorded", seconds, "s")
            await self._requests_at_rest()
            self._tell("most resident memory until then", self._most_memory, "MiB")

    async def _nothing_to_do(self) -> None:
        await self._until(self._is_leading, "the controller leads")
        requests = await self._requests_at_rest()
        what = f"restart with nothing to do, {len(self._names):,} policies and {self._jobs:,} finished Jobs: "
        self._tell(f"{what}requests in all", sum(requests.values()), "requests", _by(requests))
        self._tell(f"{what}requests for each policy", _each(requests, self._names), "requests")
        self._tell(f"{what}resident memory", self._memory(), "MiB")
        self._tell(f"{what}most resident memory", self._most_memory, "MiB")

    async def _runs(self, number: int, count: int) -> list[RunOnApi]:
        found = (await self._api.request("GET", "/apis/batch/v1/cronjobs"))["items"]
        return [RunOnApi(self._api, found[n % len(found)], number + n // len(found)) for n in range(count)]

    async def _create_namespace(self, name: str) -> None:
        await self._api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    async def _create_policy(self, key: tuple[str, str]) -> None:
        namespace, name = key
        await self._api.request("POST", f"{_POLICIES_PATH}/namespaces/{namespace}/{PLURAL}", manifest(name))

    async def _watch(self) -> None:
        async for policy in self._api.watch(f"{_POLICIES_PATH}/{PLURAL}"):
            now = time.perf_counter()
            status = policy.get("status", {})
            if any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", [])):
                self._ready.setdefault(policy["metadata"]["uid"], now)
            for record in status.get("history", []):
                self._recorded.setdefault(record["jobUID"], now)

    async def _requests_at_rest(self) -> Counter[str]:
        """Requests so far, once there are no more for a while."""
        seen = await self._requests()
        while True:
            await asyncio.sleep(3)
            now = await self._requests()
            if now == seen and now:
                return now
            seen = now

    async def _requests(self) -> Counter[str]:
        counted: Counter[str] = Counter()
        for family in text_string_to_metric_families(await asyncio.to_thread(self._controller.metrics)):
            if family.name == _REQUESTS:
                for sample in family.samples:
                    if sample.name.endswith("_total") and sample.labels["resource"] != "leases":
                        counted[f"{sample.labels['verb']} {sample.labels['resource']}"] += int(sample.value)
        return counted

    def _is_leading(self) -> bool:
        return self._controller.is_healthy()

    async def _until(self, holds: Any, what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not await asyncio.to_thread(holds):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {_PATIENCE_SECONDS} s: {what}")
            await asyncio.sleep(0.05)

    async def _sample_memory(self) -> None:
        while True:
            self._most_memory = max(self._most_memory, self._memory())
            await asyncio.sleep(0.2)

    def _memory(self) -> float:
        with suppress(psutil.Error, AssertionError):
            return psutil.Process(self._controller.pid).memory_info().rss / _MIB
        return 0.0

    def _tell(
        self,
        what: str,
        value: float,
        unit: str,
        note: str = "",
        *,
        yardstick: float | None = None,
        yardstick_is: str = "",
    ) -> None:
        figure = Figure(what, value, unit, yardstick, yardstick_is, note)
        self._figures.append(figure)
        print(f"{figure.what}: {figure.value:.4g} {figure.unit}", flush=True)


def _each(requests: Counter[str], names: list[Any]) -> float:
    return sum(requests.values()) / len(names)


def _by(requests: Counter[str]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in requests.most_common() if count > 0)
