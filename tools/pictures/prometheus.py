"""A Prometheus server that scrapes one controller."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.ports import free_port

STEP_SECONDS = 1


@dataclass(frozen=True)
class Found:
    """One series of an answer.

    Attributes:
        labels: which one.
        points: times in seconds, and values.
    """

    labels: Mapping[str, str]
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Prometheus:
    """The server's HTTP API."""

    url: str

    def at(self, query: str, moment: float) -> list[Found]:
        """What a query yields at a time."""
        answer = self._ask("query", query=query, time=moment)
        return [_found(series["metric"], [series["value"]]) for series in answer["result"]]

    def over(self, query: str, start: float, end: float) -> list[Found]:
        """What a query yields over a time."""
        answer = self._ask("query_range", query=query, start=start, end=end, step=STEP_SECONDS)
        return [_found(series["metric"], series["values"]) for series in answer["result"]]

    def _ask(self, path: str, **parameters: Any) -> dict[str, Any]:
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=30) as response:
            data: dict[str, Any] = json.load(response)["data"]
            return data


def _found(labels: dict[str, str], values: list[list[Any]]) -> Found:
    return Found(labels, [(float(moment), float(value)) for moment, value in values])


@contextmanager
def prometheus(directory: Path, target: str, labels: Mapping[str, str]) -> Iterator[Prometheus]:
    """Scrapes a target each second while the block runs."""
    program = shutil.which("prometheus")
    if program is None:
        raise SystemExit("no prometheus on PATH (on Debian: apt install prometheus)")
    scrape = {
        "job_name": labels["job"],
        "honor_labels": True,
        "static_configs": [{"targets": [target], "labels": dict(labels)}],
    }
    config = directory / "prometheus.yaml"
    settings = {"scrape_interval": f"{STEP_SECONDS}s", "scrape_timeout": f"{STEP_SECONDS}s"}
    config.write_text(yaml.safe_dump({"global": settings, "scrape_configs": [scrape]}))
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        one = Prometheus(f"http://{address}")
        _await(one)
        yield one
    finally:
        process.terminate()
        process.wait(30)


def _await(one: Prometheus) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if one.at("up == 1", time.time()):
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit("Prometheus does not scrape")
        time.sleep(0.5)
