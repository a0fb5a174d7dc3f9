"""The chart's values: described, checked, and the same in schema, values.yaml and README."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from policy import names
from policy.names import POLICY_LABEL
from policy.opentelemetry_env import OPERATORS_VARIABLES
from tests.support.chart import CHART, of_kind, render
from tests.support.helm import HelmFailed
from tools import chart_docs
from tools.chart_lint import VALUE_SETS, schema_findings

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())


def test_values_and_readme_say_what_the_schema_says() -> None:
    for path, text in chart_docs.documents(CHART).items():
        assert path.read_text() == text, f"{path.name}: run `make chart-docs`"


def test_every_value_is_described_and_has_a_default() -> None:
    for value in chart_docs.values_of(SCHEMA):
        assert value.description.endswith("."), value.name
        set_to: Any = VALUES
        for key in value.path:
            set_to = set_to[key]
        if value.is_group:
            assert set(set_to) == set(value.schema["properties"]), value.name
        else:
            assert set_to == value.default, value.name
    assert set(VALUES) == set(SCHEMA["properties"])


def test_the_readme_names_every_value() -> None:
    readme = (CHART / "README.md").read_text()
    for value in chart_docs.values_of(SCHEMA):
        assert value.is_group or f"| `{value.name}` |" in readme


def test_the_defaults_fit_the_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)


def objects_in(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield path, node
        for key, child in node.items():
            yield from objects_in(child, f"{path}.{key}")
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from objects_in(child, f"{path}[{number}]")


def test_no_object_takes_unknown_names_except_those_that_kubernetes_judges() -> None:
    for path, node in objects_in(SCHEMA):
        allowed = node.get("additionalProperties")
        assert allowed is False or isinstance(allowed, dict) or "$comment" in node, path


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"watchNamespace": "web"}, "watchNamespace"),
        ({"controller": {"replica": 2}}, "replica"),
        ({"controller": {"replicas": 0}}, "/controller/replicas"),
        ({"controller": {"replicas": "two"}}, "/controller/replicas"),
        ({"controller": {"logLevel": "loud"}}, "/controller/logLevel"),
        ({"controller": {"resyncSeconds": 0}}, "/controller/resyncSeconds"),
        ({"controller": {"extraEnv": [{"name": "SESSION_POLICY_HTTP_PORT", "value": "1"}]}}, "/controller/extraEnv/0"),
        ({"controller": {"resources": {"limits": {"memory": "lots"}}}}, "/controller/resources/limits/memory"),
        ({"controller": {"tolerations": [{"keys": "a"}]}}, "keys"),
        ({"controller": {"affinity": {"nodeAfinity": {}}}}, "nodeAfinity"),
        ({"controller": {"topologySpreadConstraints": [{"maxSkew": 1}]}}, "/controller/topologySpreadConstraints/0"),
        ({"job": {"image": {"pullPolicy": "Sometimes"}}}, "/job/image/pullPolicy"),
        ({"job": {"image": {"digest": "sha256:short"}}}, "/job/image/digest"),
        ({"job": {"limits": {"maxCpu": "much"}}}, "/job/limits/maxCpu"),
        ({"job": {"limits": {"maxMemory": "0"}}}, "/job/limits/maxMemory"),
        ({"job": {"podLabels": {POLICY_LABEL: "x"}}}, POLICY_LABEL),
        ({"job": {"podLabels": {"team": "not a label value"}}}, "/job/podLabels/team"),
        ({"job": {"podAnnotations": {"batch.kubernetes.io/job-name": "x"}}}, "batch.kubernetes.io/job-name"),
        ({"job": {"limits": {"maxRetries": -1}}}, "/job/limits/maxRetries"),
        ({"job": {"limits": {"maxParallelism": 0}}}, "/job/limits/maxParallelism"),
        ({"job": {"allow": {"tolerations": "no"}}}, "/job/allow/tolerations"),
        ({"job": {"extraEnv": {"A": 1}}}, "/job/extraEnv/A"),
        ({"telemetry": {"otlp": {"endpoint": "collector:4318"}}}, "/telemetry/otlp/endpoint"),
        ({"telemetry": {"otlp": {"endpoint": "http://user:password@collector"}}}, "/telemetry/otlp/endpoint"),
        ({"telemetry": {"otlp": {"headersSecret": "otlp"}}}, "/telemetry/otlp/headersSecret"),
        ({"telemetry": {"samplingPercent": 0.5}}, "/telemetry/samplingPercent"),
        ({"telemetry": {"resourceAttributes": {"a b": "c"}}}, "a b"),
        ({"controller": {"extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "x"}]}}, "/extraEnv/0"),
        ({"watchNamespaces": ["Not A Namespace"]}, "/watchNamespaces/0"),
        ({"networkPolicy": {"apiServer": {"cidrs": ["kubernetes"]}}}, "/networkPolicy/apiServer/cidrs/0"),
        ({"networkPolicy": {"metricsFrom": [{"namespace": "a"}]}}, "namespace"),
        ({"monitoring": {"podMonitor": {"enabled": "always"}}}, "/monitoring/podMonitor/enabled"),
        ({"monitoring": {"prometheusRule": {"runbookUrl": "docs/runbooks"}}}, "/monitoring/prometheusRule/runbookUrl"),
        ({"global": {"imageRegistry": ["registry"]}}, "/global/imageRegistry"),
        ({"global": {"imagePullSecrets": [{"secret": "a"}]}}, "/global/imagePullSecrets/0"),
        ({"extraObjects": [{"kind": "ConfigMap"}]}, "apiVersion"),
    ],
    ids=str,
)
def test_misspelt_or_senseless_values_are_refused_by_name(values: dict[str, Any], told: str) -> None:
    with pytest.raises(HelmFailed) as failed:
        render(values)
    assert told in str(failed.value)


def test_no_variable_of_the_operator_can_be_set_behind_its_back() -> None:
    own = [value for name, value in vars(names).items() if name.endswith("_ENV")]
    assert own
    own += OPERATORS_VARIABLES
    for name in own:
        with pytest.raises(HelmFailed, match=f"'{name}'"):
            render({"job": {"extraEnv": {name: "x"}}})
    assert render({"job": {"extraEnv": {"HTTPS_PROXY": "x", "DATABASE_URL_SUFFIX": "y", "OTEL_BSP_TIMEOUT": "1"}}})


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS.keys())
def test_r1_4_every_set_of_values_makes_valid_objects(values: dict[str, Any]) -> None:
    objects = render(values)
    assert schema_findings(objects) == []
    keys = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in objects]
    assert len(keys) == len(set(keys)), "two objects of one name"


def test_names_stay_within_what_kubernetes_allows() -> None:
    (service,) = of_kind(
        render({"fullnameOverride": "a" * 63, "monitoring": {"serviceMonitor": {"enabled": True}}}), "Service"
    )
    assert len(service["metadata"]["name"]) <= 63  # other objects may have 253


def test_common_labels_and_annotations_are_on_every_object() -> None:
    values = {
        **VALUE_SETS["everything set, for two namespaces"],
        "commonLabels": {"team": "a", "app.kubernetes.io/name": "other"},
        "commonAnnotations": {"owner": "b", "helm.sh/resource-policy": "delete"},
        "extraObjects": [],
    }
    for manifest in render(values):
        assert manifest["metadata"]["labels"]["team"] == "a", manifest["kind"]
        assert manifest["metadata"]["annotations"]["owner"] == "b", manifest["kind"]
        # Neither the pods' selector nor the policies' life may depend on them.
        assert manifest["metadata"]["labels"]["app.kubernetes.io/name"] == "session-policy-operator"
        if manifest["kind"] == "CustomResourceDefinition":
            assert manifest["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_further_objects_are_templates() -> None:
    (config_map,) = [m for m in render(VALUE_SETS["everything set"]) if m["metadata"]["name"] == "sessions-notes"]
    assert config_map["data"] == {"release": "release"}
