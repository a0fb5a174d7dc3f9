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
from prometheus_client.parser import text_string_to_metric_families

from policy.alerts import RUNBOOKS, runbook_link
from tests.support.chart import CHART, ROOT, container, deployment, of_kind, render
from tests.support.helm import HelmFailed
from tests.unit.controller.test_policy_metrics import busy, exposed

ALERTS = CHART / "files" / "alerts.yaml"
DASHBOARD = CHART / "files" / "dashboard.json"
PROMETHEUS = "monitoring.coreos.com/v1"


def metrics() -> set[str]:
    """What the controller exports, from its own code; `tests/controlplane/test_metrics.py` asks a running one."""
    samples = {s.name for f in text_string_to_metric_families(exposed(busy())) for s in f.samples}
    return {name for name in samples if name.startswith("session_policy_")}


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
    assert asked <= metrics()


def test_every_alert_says_what_it_is_and_how_bad() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names))
    for rule in alerts():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["labels"]["audience"] in ("operations", "security")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]


def test_no_alert_says_more_than_names_of_policies_and_words_from_closed_sets() -> None:
    """So that no id, user or credential can be in one: a metric's value and these labels are all it is made of."""
    for rule in alerts():
        text = json.dumps([rule["labels"], rule["annotations"]])
        used = {part for template in re.findall(r"{{(.*?)}}", text) for part in re.findall(r"\$[\w.]+", template)}
        assert used <= {"$value", "$labels.namespace", "$labels.policy", "$labels.reason", "$labels.result"}
        kept = {label for labels in re.findall(r"by \((.*?)\)", rule["expr"]) for label in labels.split(", ")}
        assert kept <= {"namespace", "policy", "reason", "result", "job", "le"}


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


def test_panels_are_what_grafana_takes() -> None:
    document = json.loads(DASHBOARD.read_text())
    assert document["schemaVersion"] >= 36
    variables = {variable["name"]: variable for variable in document["templating"]["list"]}
    assert set(variables) == {"datasource", "namespace", "policy"}
    for panel in panels():
        assert panel["title"]
        if panel["type"] == "row":
            assert panel["panels"] == [] and panel["collapsed"] is False
            continue
        assert panel["type"] in ("stat", "table", "timeseries")
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs)) > 0
        used = set(re.findall(r"\$(\w+)", " ".join(target["expr"] for target in panel["targets"])))
        assert used <= {"namespace", "policy", "__rate_interval"}


def test_a_table_names_each_of_its_columns() -> None:
    for panel in (panel for panel in panels() if panel["type"] == "table" and len(panel["targets"]) > 1):
        organize = next(t["options"] for t in panel["transformations"] if t["id"] == "organize")
        named = {*organize["renameByName"], *organize["excludeByName"]}
        assert {f"Value #{target['refId']}" for target in panel["targets"]} <= named
        overridden = {o["matcher"]["options"] for o in panel["fieldConfig"]["overrides"]}
        assert overridden <= set(organize["renameByName"].values())


def test_r5_the_dashboard_shows_what_the_requirements_ask_for() -> None:
    asked = " ".join(dashboard_queries())
    for metric in (
        "active_sessions",
        "created_sessions_per_second",
        "deleted_sessions_total",
        "session_duration_average_seconds",
        "redis_memory_bytes",
        "redis_hit_ratio",
    ):
        assert f"session_policy_{metric}{{" in asked


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


def runbooks(values: dict[str, Any]) -> dict[str, str]:
    """Where each alert's page is, by the name of the alert."""
    (rule,) = of_kind(render({"monitoring": {"prometheusRule": {"enabled": True, **values}}}), "PrometheusRule")
    rules = [rule for group in rule["spec"]["groups"] for rule in group["rules"]]
    return {rule["alert"]: rule["annotations"]["runbook_url"] for rule in rules}


@pytest.mark.parametrize(
    ("place", "link"),
    [
        ("https://wiki.example.com/runbooks", "https://wiki.example.com/runbooks/SessionPolicyStalled"),
        ("https://wiki.example.com/runbooks/", "https://wiki.example.com/runbooks/SessionPolicyStalled"),
        ("https://git.example.com/{alert}.md?v=1", "https://git.example.com/SessionPolicyStalled.md?v=1"),
    ],
)
def test_alerts_link_the_runbooks_where_they_are_said_to_be(place: str, link: str) -> None:
    links = runbooks({"runbookUrl": place})
    assert links["SessionPolicyStalled"] == link
    # Rules and runs follow the same rule.
    assert links == {alert: runbook_link(alert, place) for alert in links}


def test_k8_8_without_a_url_the_alerts_have_no_link_rather_than_one_that_leads_nowhere() -> None:
    (rule,) = of_kind(render({"monitoring": {"prometheusRule": {"enabled": True}}}), "PrometheusRule")
    found = [rule for group in rule["spec"]["groups"] for rule in group["rules"]]
    assert found
    for each in [*found, *alerts()]:
        assert "runbook_url" not in each["annotations"]
        page = runbook_link(each["alert"])
        assert page == RUNBOOKS.format(alert=each["alert"])
        assert (ROOT / page).is_file()


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
