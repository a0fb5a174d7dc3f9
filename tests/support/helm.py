"""Helm for tests: the `helm` program where it is on PATH, else Helm 4 as a library (helm-python-sdk)."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import yaml

Values = Mapping[str, Any]


class HelmFailed(Exception):
    """Helm refused or failed; the message is its own."""


class Helm(Protocol):
    """What the tests do with Helm."""

    def lint(self, chart: Path, values: Values) -> list[str]:
        """Findings of a strict lint; empty if there are none."""

    def render(self, chart: Path, values: Values, *, name: str, namespace: str) -> list[dict[str, Any]]:
        """All objects of the chart, without a cluster."""

    def notes(self, chart: Path, values: Values, *, name: str, namespace: str) -> str:
        """What an installation would tell its user, without a cluster."""

    def install(
        self, chart: Path, values: Values, *, name: str, namespace: str, timeout_seconds: int, wait: bool = True
    ) -> None:
        """Install or upgrade a release, and by default wait until it is ready; makes the namespace."""

    def rollback(self, *, name: str, namespace: str, timeout_seconds: int) -> None:
        """Go back to the release's revision before, without waiting until it is ready."""

    def test(self, *, name: str, namespace: str, timeout_seconds: int) -> None:
        """Run the release's own tests."""

    def uninstall(self, *, name: str, namespace: str, timeout_seconds: int) -> None:
        """Remove a release and wait until it is gone."""


def helm(kubeconfig: Path | None = None) -> Helm:
    """The Helm of this machine; a kubeconfig is needed for install and uninstall only."""
    program = shutil.which("helm")
    return HelmLibrary(kubeconfig) if program is None else HelmProgram(program, kubeconfig)


def field_manager() -> str:
    """As what Helm writes: its own name, or as a library that of the process."""
    if shutil.which("helm"):
        return "helm"
    return Path(Path("/proc/self/cmdline").read_text().split("\0")[0]).name


class HelmProgram:
    """The `helm` program, version 3 or 4."""

    def __init__(self, program: str, kubeconfig: Path | None) -> None:
        self._program = program
        self._kubeconfig = kubeconfig

    def lint(self, chart: Path, values: Values) -> list[str]:
        with _values_file(values) as file:
            try:
                self._run("lint", str(chart), "--strict", "--quiet", "--values", file)
            except HelmFailed as failed:
                return [str(failed)]
        return []

    def render(self, chart: Path, values: Values, *, name: str, namespace: str) -> list[dict[str, Any]]:
        with _values_file(values) as file:
            text = self._run("template", name, str(chart), "--namespace", namespace, "--values", file)
        return _objects([text])

    def notes(self, chart: Path, values: Values, *, name: str, namespace: str) -> str:
        options = ("--namespace", namespace, "--dry-run=client", "--output=json")
        with _values_file(values) as file:
            release = json.loads(self._run("install", name, str(chart), *options, "--values", file))
        return str(release["info"]["notes"])

    def install(
        self, chart: Path, values: Values, *, name: str, namespace: str, timeout_seconds: int, wait: bool = True
    ) -> None:
        with _values_file(values) as file:
            self._run(
                *("upgrade", "--install", name, str(chart), "--namespace", namespace, "--create-namespace"),
                *("--values", file, f"--timeout={timeout_seconds}s", *(["--wait"] if wait else [])),
            )

    def rollback(self, *, name: str, namespace: str, timeout_seconds: int) -> None:
        self._run("rollback", name, "--namespace", namespace, f"--timeout={timeout_seconds}s")

    def test(self, *, name: str, namespace: str, timeout_seconds: int) -> None:
        self._run("test", name, "--namespace", namespace, f"--timeout={timeout_seconds}s")

    def uninstall(self, *, name: str, namespace: str, timeout_seconds: int) -> None:
        self._run("uninstall", name, "--namespace", namespace, "--wait", f"--timeout={timeout_seconds}s")

    def _run(self, *arguments: str) -> str:
        where = [] if self._kubeconfig is None else [f"--kubeconfig={self._kubeconfig}"]
        result = subprocess.run([self._program, *arguments, *where], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise HelmFailed(f"{result.stderr.strip()}\n{result.stdout.strip()}".strip())
        return result.stdout


class HelmLibrary:
    """Helm 4 itself, loaded as a shared library."""

    def __init__(self, kubeconfig: Path | None) -> None:
        self._kubeconfig = kubeconfig

    def lint(self, chart: Path, values: Values) -> list[str]:
        import helm_python

        report = helm_python.lint(chart, dict(values), strict=True)
        # 1 is "info", such as a missing icon.
        found = [f"{m['path']}: {m['error']}" for m in report["messages"] if m["severity"] > 1]
        return found + [error for error in report["errors"] or [] if not any(error in f for f in found)]

    def render(self, chart: Path, values: Values, *, name: str, namespace: str) -> list[dict[str, Any]]:
        import helm_python

        with self._failing(), helm_python.Chart.load(chart) as loaded:
            loaded.validate_schema(dict(values))
            files = loaded.render(dict(values), name=name, namespace=namespace)
        return _objects(text for path, text in files.items() if path.endswith(".yaml"))

    def notes(self, chart: Path, values: Values, *, name: str, namespace: str) -> str:
        import helm_python

        with self._failing(), helm_python.Chart.load(chart) as loaded:
            loaded.validate_schema(dict(values))
            files = loaded.render(dict(values), name=name, namespace=namespace)
        return next(text for path, text in files.items() if path.endswith("NOTES.txt"))

    def install(
        self, chart: Path, values: Values, *, name: str, namespace: str, timeout_seconds: int, wait: bool = True
    ) -> None:
        import helm_python

        strategy = "watcher" if wait else "hookOnly"
        options: dict[str, Any] = {"namespace": namespace, "timeout": timeout_seconds, "wait": strategy}
        with (
            self._failing(),
            helm_python.Config(kubeconfig_path=self._kubeconfig, namespace=namespace) as config,
        ):
            try:
                config.status(name)
            except helm_python.HelmNotFoundError:
                config.install(chart, name, dict(values), create_namespace=True, **options)
            else:
                config.upgrade(chart, name, dict(values), **options)

    def uninstall(self, *, name: str, namespace: str, timeout_seconds: int) -> None:
        import helm_python

        with (
            self._failing(),
            helm_python.Config(kubeconfig_path=self._kubeconfig, namespace=namespace) as config,
        ):
            config.uninstall(name, timeout=timeout_seconds, wait="watcher")

    def rollback(self, *, name: str, namespace: str, timeout_seconds: int) -> None:
        import helm_python

        with (
            self._failing(),
            helm_python.Config(kubeconfig_path=self._kubeconfig, namespace=namespace) as config,
        ):
            config.rollback(name, timeout=timeout_seconds, wait="hookOnly")

    def test(self, *, name: str, namespace: str, timeout_seconds: int) -> None:
        import helm_python

        with (
            self._failing(),
            helm_python.Config(kubeconfig_path=self._kubeconfig, namespace=namespace) as config,
        ):
            config.test(name, timeout=timeout_seconds)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        import helm_python

        try:
            yield
        except helm_python.HelmError as error:
            raise HelmFailed(str(error)) from error


# libyaml reads a rendered chart ten times as fast as Python does; not every build of PyYAML has it.
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _objects(texts: Iterable[str]) -> list[dict[str, Any]]:
    return [document for text in texts for document in yaml.load_all(text, _LOADER) if document]


@contextmanager
def _values_file(values: Values) -> Iterator[str]:
    # JSON is YAML.
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        yield file.name
