"""The network policies of the chart."""

from __future__ import annotations

from typing import Any

from policy.names import POLICY_LABEL
from tests.support.chart import NAME, NAMESPACE, container, deployment, of_kind, render

ON: dict[str, Any] = {"enabled": True}


def policies(network_policy: dict[str, Any], **values: Any) -> dict[str, dict[str, Any]]:
    """The specs of the network policies, by namespace."""
    objects = render({"networkPolicy": network_policy, **values})
    return {m["metadata"]["namespace"]: m["spec"] for m in of_kind(objects, "NetworkPolicy")}


def ports(rule: dict[str, Any]) -> set[tuple[int, str]]:
    return {(port["port"], port["protocol"]) for port in rule["ports"]}


def test_there_are_none_unless_asked_for() -> None:
    assert not of_kind(render({"watchNamespaces": ["web"]}), "NetworkPolicy")


def test_the_controller_answers_on_one_port_and_asks_api_server_and_dns_only() -> None:
    found = policies(ON)
    assert set(found) == {NAMESPACE}
    spec = found[NAMESPACE]
    assert spec["podSelector"] == deployment()["spec"]["selector"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    (ingress,) = spec["ingress"]
    assert ports(ingress) == {(container()["ports"][0]["containerPort"], "TCP")}
    assert ingress["from"] == [{"namespaceSelector": {}}]
    api_server, dns = spec["egress"]
    assert ports(api_server) == {(443, "TCP"), (6443, "TCP")}
    assert "to" not in api_server
    assert ports(dns) == {(53, "UDP"), (53, "TCP")}


def test_the_controllers_peers_can_be_narrowed() -> None:
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    further = {"ports": [{"port": 4318, "protocol": "TCP"}]}
    spec = policies(
        {
            **ON,
            "apiServer": {"cidrs": ["10.0.0.1/32"], "ports": [16443]},
            "dns": {"to": [{"ipBlock": {"cidr": "169.254.20.10/32"}}], "ports": [5353]},
            "metricsFrom": [monitoring],
            "extraEgress": [further],
        }
    )[NAMESPACE]
    assert spec["ingress"][0]["from"] == [monitoring]
    api_server, dns, last = spec["egress"]
    assert api_server["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]
    assert ports(api_server) == {(16443, "TCP")}
    assert dns["to"] == [{"ipBlock": {"cidr": "169.254.20.10/32"}}]
    assert ports(dns) == {(5353, "UDP"), (5353, "TCP")}
    assert last == further


def test_no_peer_for_metrics_means_nobody() -> None:
    # A rule without "from" would let everybody in.
    assert "ingress" not in policies({**ON, "metricsFrom": []})[NAMESPACE]


def test_cleanup_pods_take_no_connection_and_reach_dns_and_stores_only() -> None:
    found = policies(ON, watchNamespaces=["web", "shop"])
    assert set(found) == {NAMESPACE, "web", "shop"}
    assert found["web"] == found["shop"]
    spec = found["web"]
    assert spec["podSelector"] == {"matchExpressions": [{"key": POLICY_LABEL, "operator": "Exists"}]}
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in spec
    stores, dns = spec["egress"]
    assert ports(stores) == {(5432, "TCP"), (3306, "TCP"), (6379, "TCP"), (26379, "TCP")}
    assert "to" not in stores
    assert ports(dns) == {(53, "UDP"), (53, "TCP")}


def test_the_cleanup_pods_peers_can_be_narrowed_or_left_alone() -> None:
    database = {"podSelector": {"matchLabels": {"app": "postgres"}}}
    chat = {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 443}]}
    jobs = {"storesTo": [database], "storePorts": [5433], "extraEgress": [chat]}
    stores, _, last = policies({**ON, "jobs": jobs}, watchNamespaces=["web"])["web"]["egress"]
    assert stores["to"] == [database]
    assert ports(stores) == {(5433, "TCP")}
    assert last == chat
    assert set(policies({**ON, "jobs": {"enabled": False}}, watchNamespaces=["web"])) == {NAMESPACE}


def test_controller_and_cleanup_pods_reach_the_collector() -> None:
    for endpoint, port in (
        ("http://collector.observability:4318", 4318),
        ("https://collector.example.com/otlp", 443),
        ("http://collector", 80),
    ):
        told = {"otlp": {"endpoint": endpoint}}
        found = policies(ON, watchNamespaces=["web"], telemetry=told)
        assert all(ports(spec["egress"][-1]) == {(port, "TCP")} for spec in found.values())
        alone = policies(ON, watchNamespaces=["web"], telemetry={**told, "jobs": {"enabled": False}})
        assert [len(alone[namespace]["egress"]) for namespace in (NAMESPACE, "web")] == [3, 2]
        alone = policies(ON, watchNamespaces=["web"], telemetry={**told, "controller": {"enabled": False}})
        assert [len(alone[namespace]["egress"]) for namespace in (NAMESPACE, "web")] == [2, 3]


def test_the_operators_own_namespace_may_hold_policies_too() -> None:
    objects = of_kind(render({"networkPolicy": ON, "watchNamespaces": [NAMESPACE]}), "NetworkPolicy")
    assert [m["metadata"]["name"] for m in objects] == [NAME, f"{NAME}-jobs"]


def test_cluster_wide_no_namespace_is_known() -> None:
    assert set(policies(ON)) == {NAMESPACE}
