"""Tests the installed operator: ``python -m controller.selftest NAMESPACE``, which `helm test` runs.

It creates a policy that never runs, waits until the controller has created its CronJob, and deletes it.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from typing import Any, Final

from controller.api.kube import Kube, KubeError, NoClusterError, UnavailableError
from policy.names import API_VERSION, KIND

_TIMEOUT_SECONDS: Final = 90
_PAUSE_SECONDS: Final = 1


class SelfTestError(Exception):
    """The operator does not work; the message says what was seen instead."""


def probe_policy(namespace: str, name: str) -> dict[str, Any]:
    """A suspended dry-run policy whose Secret need not exist."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "schedule": "0 0 * * *",
            "suspend": True,
            "dryRun": True,
            # No limits of the operator can be lower.
            "job": {"retries": 0, "timeoutSeconds": 30},
            "stores": {"database": {"urlFrom": {"secretKeyRef": {"name": name, "key": "url"}}}},
        },
    }


def ready_message(policy: dict[str, Any]) -> str | None:
    """The message of the policy's Ready condition once it is true, else None."""
    condition = _ready_condition(policy)
    current = condition.get("observedGeneration") == policy["metadata"]["generation"]
    return str(condition.get("message")) if current and condition.get("status") == "True" else None


async def check_operator(kube: Kube, namespace: str, timeout_seconds: float) -> str:
    """Create a policy, wait until it is Ready, delete it; return the message of its Ready condition.

    Raises:
        SelfTestError: it did not become Ready in time, or could not be created.
    """
    name = f"selftest-{secrets.token_hex(4)}"
    try:
        await kube.create_policy(probe_policy(namespace, name))
    except KubeError as error:
        raise SelfTestError(f"the test policy could not be created in namespace {namespace}: {error}") from error
    last: dict[str, Any] = {}
    try:
        async with asyncio.timeout(timeout_seconds):
            while True:
                last = await _get(kube, namespace, name) or last
                if last and (message := ready_message(last)) is not None:
                    return message
                await asyncio.sleep(_PAUSE_SECONDS)
    except TimeoutError:
        seen = _ready_condition(last)
        state = (
            f"Ready is {seen.get('status')}: {seen.get('message')}"
            if seen
            else "it has no status; see the controller's log"
        )
        raise SelfTestError(f"policy {namespace}/{name} is not Ready after {timeout_seconds:g} s; {state}") from None
    finally:
        await kube.delete_policy(namespace, name)


async def run(namespace: str, timeout_seconds: float) -> str:
    """Connect as the Pod's service account and run the test."""
    kube = await Kube.connect()
    try:
        return await check_operator(kube, namespace, timeout_seconds)
    finally:
        await kube.close()


def main(namespace: str, timeout_seconds: float = _TIMEOUT_SECONDS) -> int:
    """Exit code 0 if the operator works, 1 if not."""
    try:
        message = asyncio.run(run(namespace, timeout_seconds))
    except (SelfTestError, KubeError, NoClusterError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    print(f"The operator serves namespace {namespace}: {message}")
    return 0


async def _get(kube: Kube, namespace: str, name: str) -> dict[str, Any] | None:
    try:
        return await kube.get_policy(namespace, name)
    except UnavailableError:
        return None  # asked again


def _ready_condition(policy: dict[str, Any]) -> dict[str, Any]:
    conditions: list[dict[str, Any]] = policy.get("status", {}).get("conditions") or []
    return next((condition for condition in conditions if condition["type"] == "Ready"), {})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
