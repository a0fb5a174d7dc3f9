"""The examples of docs/how-to/monitor.md work, and its pictures show what there is."""

from __future__ import annotations

import copy
import shutil
import subprocess
from html import escape
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart import ROOT, of_kind, render
from tests.support.code_blocks import yaml_examples
from tests.unit.chart.test_monitoring import ALERTS, alerts, panels

PAGE = ROOT / "docs" / "how-to" / "monitor.md"
IMAGES = ROOT / "docs" / "images"
EXAMPLES = yaml_examples(PAGE)


def example(key: str) -> dict[str, Any]:
    return next(found for found in EXAMPLES if key in found)


@pytest.mark.parametrize("values", [e for e in EXAMPLES if "monitoring" in e], ids=str)
def test_the_values_are_accepted(values: dict[str, Any]) -> None:
    for part in values["monitoring"].values():
        part["enabled"] = True
    assert of_kind(render(values), "PrometheusRule")


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool on PATH: the scrape configuration is not read"
)
def test_prometheus_takes_the_configuration(tmp_path: Path) -> None:
    shutil.copy(ALERTS, tmp_path / "alerts.yaml")
    configuration = copy.deepcopy(example("scrape_configs"))
    (scrape,) = configuration["scrape_configs"]
    assert scrape["honor_labels"] is True
    # Some distributions build Prometheus without the discovery of Kubernetes' objects.
    scrape["static_configs"] = [{"targets": ["127.0.0.1:8080"]} for _ in scrape.pop("kubernetes_sd_configs")]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yaml")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_alerts_are_routed_by_labels_that_they_have() -> None:
    routing = example("route")
    assert {route["receiver"] for route in routing["route"]["routes"]} <= {r["name"] for r in routing["receivers"]}
    names = {rule["alert"] for rule in alerts()}
    for rule in routing["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            assert matcher.partition("=")[2].strip('"') in names


def test_the_picture_of_the_dashboard_has_all_its_panels() -> None:
    picture = (IMAGES / "dashboard.svg").read_text()
    for panel in panels():
        # A long title may be cut off.
        assert f">{escape(panel['title'])[:24]}" in picture, f"{panel['title']}: draw it anew, python -m tools.pictures"


def test_the_picture_of_a_trace_has_all_steps_of_a_run() -> None:
    from tests.stores.test_tracing import STEPS

    picture = (IMAGES / "trace.svg").read_text()
    for name in (*STEPS, "record outcome"):
        assert f">{name}</text>" in picture, f"{name}: draw it anew, python -m tools.pictures"
