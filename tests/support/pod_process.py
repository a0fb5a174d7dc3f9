"""The container of a Pod as a process on this machine, with the variables that a kubelet would give it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.runs import Command

Pod = Mapping[str, Any]

NODE = "node-1"


def environment(pod: Pod, secrets: Mapping[str, str]) -> dict[str, str]:
    """The variables of the Pod's container.

    Args:
        pod: the Pod, as the API server shows it.
        secrets: values by ``name/key``; one that is missing must be optional.
    """
    (container,) = pod["spec"]["containers"]
    return dict(_variables(container["env"], pod, secrets))


def start(pod: Pod, secrets: Mapping[str, str], directory: Path) -> Command:
    """Start the Pod's container."""
    (container,) = pod["spec"]["containers"]
    (name,) = container["args"]
    return Command(directory, None, None, output=None, environment=environment(pod, secrets), name=name)


def _variables(env: list[dict[str, Any]], pod: Pod, secrets: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for variable in env:
        name, source = variable["name"], variable.get("valueFrom", {})
        if "fieldRef" in source:
            yield name, _field(pod, source["fieldRef"]["fieldPath"])
        elif "secretKeyRef" in source:
            reference = source["secretKeyRef"]
            key = f"{reference['name']}/{reference['key']}"
            assert key in secrets or reference.get("optional"), f"the container could not start without {key}"
            if key in secrets:
                yield name, secrets[key]
        else:
            yield name, variable.get("value", "")


def _field(pod: Pod, path: str) -> str:
    if path == "spec.nodeName":
        return str(pod["spec"].get("nodeName", NODE))  # there is no scheduler
    if path.startswith("metadata.labels['"):
        return str(pod["metadata"]["labels"][path.removeprefix("metadata.labels['").removesuffix("']")])
    return str(pod["metadata"][path.removeprefix("metadata.")])
