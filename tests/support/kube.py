"""kubectl for tests."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.support.controlplane import DEFAULT_ASSETS
from tests.support.patience import PATIENCE_SECONDS


class KubectlMissing(Exception):
    """There is no kubectl in KUBEBUILDER_ASSETS or on PATH."""


class Kubectl:
    """kubectl bound to one kubeconfig file, so that a test never meets the caller's current context."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        assets = os.environ.get("KUBEBUILDER_ASSETS", DEFAULT_ASSETS)
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), assets])
        program = shutil.which("kubectl", path=path)
        if program is None:
            raise KubectlMissing(f"no kubectl on PATH or in {assets}")
        self._program = program

    def run(self, *arguments: str, stdin: str | None = None, timeout_seconds: float = PATIENCE_SECONDS + 30) -> str:
        """Run one command and return what it printed.

        Raises:
            subprocess.CalledProcessError: It failed; its message is in the exception's notes.
        """
        result = subprocess.run(
            [self._program, f"--kubeconfig={self.kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        if result.returncode != 0:
            error = subprocess.CalledProcessError(
                result.returncode, ["kubectl", *arguments], result.stdout, result.stderr
            )
            error.add_note(result.stderr.strip())
            raise error
        return result.stdout

    def shell(self, line: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """A line of shell as somebody would type it, with these variables set."""
        path = os.pathsep.join([str(Path(self._program).parent), os.environ.get("PATH", os.defpath)])
        own = {"PATH": path, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.kubeconfig.parent)}
        return subprocess.run(
            ["sh", "-c", line],
            env={**variables, **own},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    def get(self, resource: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        """One object."""
        found: dict[str, Any] = json.loads(self.run("get", resource, name, "-o", "json", *_in(namespace)))
        return found

    def list(self, resource: str, namespace: str | None = None, selector: str = "") -> list[dict[str, Any]]:
        """All objects of a kind, of one namespace or of all."""
        scope = _in(namespace) if namespace else ["--all-namespaces"]
        selection = [f"--selector={selector}"] if selector else []
        found: list[dict[str, Any]] = json.loads(self.run("get", resource, "-o", "json", *scope, *selection))["items"]
        return found

    def names(self, resource: str, namespace: str | None = None) -> set[str]:
        """The names of all objects of a kind."""
        return {item["metadata"]["name"] for item in self.list(resource, namespace)}

    def exists(self, resource: str, name: str, namespace: str | None = None) -> bool:
        """Whether the object is there."""
        return bool(self.run("get", resource, name, "--ignore-not-found", "-o", "name", *_in(namespace)))

    def apply(self, manifest: Mapping[str, Any], namespace: str | None = None) -> dict[str, Any]:
        """Apply a manifest and return the object as stored."""
        applied: dict[str, Any] = json.loads(
            self.run("apply", "-f", "-", "-o", "json", *_in(namespace), stdin=json.dumps(manifest))
        )
        return applied

    @contextmanager
    def temporary_namespace(self, prefix: str = "test") -> Iterator[str]:
        """A namespace that is deleted afterwards, without waiting for it."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.run("create", "namespace", name)
        try:
            yield name
        finally:
            self.run("delete", "namespace", name, "--wait=false", "--ignore-not-found")


T = TypeVar("T")


def eventually(probe: Callable[[], T | None], *, timeout_seconds: float = PATIENCE_SECONDS, what: str) -> T:
    """The first true result of a probe, or an AssertionError that says what never came about."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        if result := probe():
            return result
        assert time.monotonic() < deadline, f"not within {timeout_seconds:g} s: {what}"
        time.sleep(0.25)


def _in(namespace: str | None) -> list[str]:
    return ["-n", namespace] if namespace else []
