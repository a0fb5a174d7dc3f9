"""Monitors, alert rules and dashboard: rendered on request, about metrics that exist, understood by Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart import CHART, container, deployment, of_kind, render
from tests.support.helm import HelmFailed

ALERTS = CHART / "files" / "alerts.yaml"
DASHBOARD = CHART / "files" / "dashboard.json"
PROMETHEUS = "monitoring.coreos.com/v1"

# The controller's metrics. A histogram is asked for by its buckets.
METRICS = {
    "session_policy_" + name
    for name in (
        "last_run_timestamp_seconds",
        "last_success_timestamp_seconds",
        "last_run_outcome",
        "last_run_duration_seconds",
        "last_run_sessions",
        "active_sessions",
        "consecutive_failures",
        "runs_total",
        "deleted_sessions_total",
        "missed_schedules_total",
        "ready",
        "suspended",
        "stalled",
        "running",
        "next_schedule_timestamp_seconds",
        "schedule_interval_seconds",
        "job_timeout_seconds",
        "controller_reconcile_total",
        "controller_reconcile_duration_seconds_bucket",
        "controller_queue_depth",
        "controller_queue_wait_seconds_bucket",
        "controller_api_requests_total",
        "controller_leader",
        "controller_build_info",
    )
}


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def dashboard_queries() -> Iterator[str]:
    for panel in panels():
        yield from (target["expr"] for target in panel.get("targets", []))


def without_variables(query: str) -> str:
    """A dashboard's query as Grafana sends it."""
    return query.replace("$__rate_interval", "5m").replace("$namespace", ".*").replace("$policy", ".*")


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in alerts()), *dashboard_queries()])
def test_alerts_and_dashboard_ask_for_metrics_that_exist(query: str) -> None:
    asked = set(re.findall(r"session_policy_\w+", query))
    assert asked
    assert asked <= METRICS


def test_every_alert_says_what_it_is_and_how_bad() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names))
    for rule in alerts():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]


def test_panels_are_told_apart_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    cells = [
        (x, y)
        for position in (panel["gridPos"] for panel in panels())
        for x in range(position["x"], position["x"] + position["w"])
        for y in range(position["y"], position["y"] + position["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@pytest.fixture(scope="session")
def promtool() -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool on PATH: what Prometheus makes of alerts and dashboard is not tested")
    return program


def run(*command: str, cwd: Path | None = None) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr


def test_prometheus_takes_the_rules(promtool: str) -> None:
    run(promtool, "check", "rules", str(ALERTS))


def test_prometheus_understands_every_panel(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:query:{number}", "expr": without_variables(query)}
        for number, query in enumerate(dashboard_queries())
    ]
    assert rules
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    run(promtool, "check", "rules", str(tmp_path / "panels.yaml"))


def test_alerts_fire_when_they_should_and_only_then(promtool: str, tmp_path: Path) -> None:
    shutil.copy(ALERTS, tmp_path / "alerts.yaml")
    shutil.copy(Path(__file__).with_name("alerts.promtool.yaml"), tmp_path / "cases.yaml")
    run(promtool, "test", "rules", "cases.yaml", cwd=tmp_path)


def test_every_alert_has_a_case() -> None:
    cases = yaml.safe_load(Path(__file__).with_name("alerts.promtool.yaml").read_text())["tests"]
    fired = {rule["alertname"] for case in cases for rule in case.get("alert_rule_test", []) if rule.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in alerts()}


def test_without_the_prometheus_operator_nothing_of_it_is_rendered() -> None:
    assert not [manifest for manifest in render() if manifest["apiVersion"] == PROMETHEUS]
    assert not of_kind(render(), "Service")


def test_a_pod_monitor_scrapes_the_controllers() -> None:
    on = {"enabled": True, "interval": "15s", "scrapeTimeout": "5s", "labels": {"release": "prometheus"}}
    (monitor,) = of_kind(render({"monitoring": {"podMonitor": on}}), "PodMonitor")
    assert monitor["spec"]["selector"] == deployment()["spec"]["selector"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["podMetricsEndpoints"] == [
        {
            "port": container()["ports"][0]["name"],
            "path": "/metrics",
            "honorLabels": True,  # else the label "namespace" of every policy would be the controller's
            "interval": "15s",
            "scrapeTimeout": "5s",
        }
    ]


def test_a_service_monitor_brings_its_service() -> None:
    objects = render({"monitoring": {"serviceMonitor": {"enabled": True}}})
    (monitor,), (service,) = of_kind(objects, "ServiceMonitor"), of_kind(objects, "Service")
    assert not of_kind(objects, "PodMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert service["spec"]["selector"] == deployment()["spec"]["selector"]["matchLabels"]
    assert service["spec"]["ports"][0]["targetPort"] == container()["ports"][0]["name"]


def test_nothing_is_scraped_twice() -> None:
    both = {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}
    with pytest.raises(HelmFailed, match="switch one off"):
        render({"monitoring": both})


def test_the_rules_reach_the_cluster_as_they_are() -> None:
    on = {"enabled": True, "labels": {"release": "prometheus"}}
    (rule,) = of_kind(render({"monitoring": {"prometheusRule": on}}), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(ALERTS.read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"


def test_grafanas_sidecar_finds_the_dashboard() -> None:
    assert not of_kind(render(), "ConfigMap")
    on = {"enabled": True, "annotations": {"grafana_folder": "Operators"}}
    (found,) = of_kind(render({"monitoring": {"dashboard": on}}), "ConfigMap")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["metadata"]["annotations"] == {"grafana_folder": "Operators"}
    (text,) = found["data"].values()
    assert json.loads(text) == json.loads(DASHBOARD.read_text())
    named = {"enabled": True, "labels": {"dashboards": "yes"}}
    (found,) = of_kind(render({"monitoring": {"dashboard": named}}), "ConfigMap")
    assert found["metadata"]["labels"]["dashboards"] == "yes"
