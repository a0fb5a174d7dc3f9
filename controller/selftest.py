"""Proves that the installed operator works: ``python -m controller.selftest NAMESPACE``, which `helm test` runs.

A policy that never runs is created; a working controller accepts it and makes its CronJob. Then it is deleted.
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
    """The operator does not do its work; the message says what was seen instead."""


def probe_policy(namespace: str, name: str) -> dict[str, Any]:
    """A policy that is suspended, only counts, and names a Secret that nobody reads."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "schedule": "0 0 * * *",
            "suspend": True,
            "dryRun": True,
            # No administrator can allow less.
            "job": {"retries": 0, "timeoutSeconds": 30},
            "stores": {"database": {"urlFrom": {"secretKeyRef": {"name": name, "key": "url"}}}},
        },
    }


def ready_message(policy: dict[str, Any]) -> str | None:
    """What the controller says of the policy once it is Ready, else None."""
    condition = _ready_condition(policy)
    current = condition.get("observedGeneration") == policy["metadata"]["generation"]
    return str(condition.get("message")) if current and condition.get("status") == "True" else None


async def prove(kube: Kube, namespace: str, timeout_seconds: float) -> str:
    """Create a policy, wait until it is Ready, delete it; return what the controller said of it.

    Raises:
        SelfTestError: it did not become Ready in time, or could not be created.
    """
    name = f"selftest-{secrets.token_hex(4)}"
    try:
        await kube.create_policy(probe_policy(namespace, name))
    except KubeError as error:
        raise SelfTestError(f"no policy can be created in namespace {namespace}: {error}") from error
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
        told = f"Ready is {seen.get('status')}: {seen.get('message')}" if seen else "no controller has looked at it"
        raise SelfTestError(f"policy {namespace}/{name} not Ready within {timeout_seconds:g} s; {told}") from None
    finally:
        await kube.delete_policy(namespace, name)


async def run(namespace: str, timeout_seconds: float) -> str:
    """Connect as the Pod's service account and prove it."""
    kube = await Kube.connect()
    try:
        return await prove(kube, namespace, timeout_seconds)
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
