"""The CustomResourceDefinition, generated from the models.

Pydantic writes JSON Schema; Kubernetes wants a structural OpenAPI schema (no references, no unions, no titles). The
difference is small and all of it is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from policy.model import Model
from policy.names import GROUP, KIND, PLURAL, SHORT_NAME, SINGULAR, VERSION
from policy.spec import SessionPolicySpec
from policy.status import SessionPolicyStatus

_KEYWORDS = (
    "type",
    "format",
    "description",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "default",
)

# Lists of the status that are keyed, so that tools which merge (server-side apply) see items, not one opaque value.
_LIST_KEYS = {"conditions": "type", "history": "jobUID"}


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition of SessionPolicy as a manifest."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": SINGULAR,
                "shortNames": [SHORT_NAME],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _printer_columns(),
                    "schema": {"openAPIV3Schema": _resource_schema()},
                }
            ],
        },
    }


def _printer_columns() -> list[dict[str, Any]]:
    def column(name: str, json_path: str, kind: str = "string", *, wide: bool = False) -> dict[str, Any]:
        return {"name": name, "type": kind, "jsonPath": json_path} | ({"priority": 1} if wide else {})

    return [
        column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        column("Schedule", ".spec.schedule"),
        column("Suspend", ".spec.suspend", "boolean"),
        column("Last result", ".status.lastRun.outcome"),
        column("Deleted", ".status.lastRun.sessions.deleted", "integer"),
        column("Active", ".status.lastRun.sessions.active", "integer"),
        # The time a run ended, not the time it was scheduled: a failure must not look fresh.
        column("Last run", ".status.lastRun.completionTime", "date"),
        column("Age", ".metadata.creationTimestamp", "date"),
        # A date column prints times ahead as <invalid>.
        column("Next run", ".status.nextScheduleTime", wide=True),
        column("Duration", ".status.lastRun.durationSeconds", "number", wide=True),
        column("Failures", ".status.consecutiveFailures", "integer", wide=True),
        column("Message", ".status.lastRun.message", wide=True),
    ]


def _resource_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "A SessionPolicy keeps the login sessions of one application healthy: a CronJob made from it "
        "deletes what has expired, enforces limits, makes Redis and the database agree, and reports into its status.",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": model_schema(SessionPolicySpec),
            "status": model_schema(SessionPolicyStatus),
        },
        "required": ["spec"],
    }


def model_schema(model: type[Model]) -> dict[str, Any]:
    """The structural schema of a model, with its descriptions, defaults and CEL rules."""
    document = model.model_json_schema(by_alias=True, mode="validation", schema_generator=_Generator)
    definitions = document.pop("$defs", {})
    return _structural(document, definitions)


class _Generator(GenerateJsonSchema):
    """Adds a model's CEL rules to its JSON schema."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        result = super().model_schema(schema)
        model = schema["cls"]
        rules = getattr(model, "rules", ())
        if rules:
            result["x-kubernetes-validations"] = [{"rule": rule.cel, "message": rule.message} for rule in rules]
        return result


def _structural(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """One schema node without references, unions with null, and titles."""
    if "$ref" in node:
        target = definitions[node["$ref"].removeprefix("#/$defs/")]
        # Beside a reference stand the field's own description and default; they win over the type's.
        return _structural({**target, **{k: v for k, v in node.items() if k != "$ref"}}, definitions)
    if node.get("x-kubernetes-int-or-string"):
        return {k: v for k, v in node.items() if k != "title"}
    if "anyOf" in node:
        (only,) = [option for option in node["anyOf"] if option != {"type": "null"}]
        rest = {k: v for k, v in node.items() if k not in {"anyOf", "default"}}
        return _structural({**only, **rest}, definitions)

    result: dict[str, Any] = {k: node[k] for k in _KEYWORDS if k in node}
    if "properties" not in node and result.get("default") in ([], {}):
        del result["default"]  # an empty list or map stored in every policy would only be noise
    if "const" in node:
        result["enum"] = [node["const"]]
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if "properties" in node:
        result["properties"] = {k: _keyed(k, _structural(v, definitions)) for k, v in node["properties"].items()}
        if node.get("required"):
            result["required"] = list(node["required"])
        if "default" in result:
            # The API server fills the fields of a default from their own defaults: say each only once.
            result["default"] = _explicit(result["default"], result["properties"])
    elif isinstance(node.get("additionalProperties"), Mapping):
        result["additionalProperties"] = _structural(node["additionalProperties"], definitions)
    if "items" in node:
        result["items"] = _structural(node["items"], definitions)
    if "x-kubernetes-validations" in node:
        result["x-kubernetes-validations"] = node["x-kubernetes-validations"]
    return result


def _keyed(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type") == "array" and name in _LIST_KEYS:
        schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [_LIST_KEYS[name]]}
    return schema


def _explicit(default: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a default that the properties' own defaults do not say already."""
    return {k: v for k, v in default.items() if v is not None and not _implied(v, properties[k])}


def _implied(value: Any, schema: Mapping[str, Any]) -> bool:
    if "default" not in schema:
        return value in ([], {})
    if "properties" in schema:
        return not _explicit(value, schema["properties"])
    return bool(schema["default"] == value)
