"""The CustomResourceDefinitions, generated from the models.

Pydantic writes JSON Schema; Kubernetes wants a structural OpenAPI schema (no references, no unions, no titles). The
difference is small and all of it is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from policy.descriptions import descriptions
from policy.model import Model
from policy.names import (
    GROUP,
    KIND,
    PLURAL,
    REVOCATION_KIND,
    REVOCATION_PLURAL,
    REVOCATION_SHORT_NAME,
    REVOCATION_SINGULAR,
    SHORT_NAME,
    SINGULAR,
    VERSION,
)
from policy.revocation import SessionRevocationSpec, SessionRevocationStatus
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


@dataclass(frozen=True, slots=True)
class Definition:
    """What one kind of resource is made of.

    Attributes:
        kind, plural, singular, short_name: its names.
        description: what it is for, in one sentence.
        spec, status: its models.
        columns: what ``kubectl get`` shows.
        is_immutable: the spec cannot be changed.
    """

    kind: str
    plural: str
    singular: str
    short_name: str
    description: str
    spec: type[Model]
    status: type[Model]
    columns: tuple[dict[str, Any], ...]
    is_immutable: bool = False


def _column(name: str, json_path: str, kind: str = "string", *, wide: bool = False) -> dict[str, Any]:
    return {"name": name, "type": kind, "jsonPath": json_path} | ({"priority": 1} if wide else {})


POLICY = Definition(
    kind=KIND,
    plural=PLURAL,
    singular=SINGULAR,
    short_name=SHORT_NAME,
    description="A SessionPolicy keeps the login sessions of one application healthy: a CronJob made from it "
    "deletes what has expired, enforces limits, makes Redis and the database agree, and reports into its status.",
    spec=SessionPolicySpec,
    status=SessionPolicyStatus,
    columns=(
        _column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        _column("Schedule", ".spec.schedule"),
        _column("Suspend", ".spec.suspend", "boolean"),
        _column("Last result", ".status.lastRun.outcome"),
        _column("Deleted", ".status.lastRun.sessions.deleted", "integer"),
        _column("Active", ".status.lastRun.sessions.active", "integer"),
        # The time a run ended, not the time it was scheduled: a failure must not look fresh.
        _column("Last run", ".status.lastRun.completionTime", "date"),
        _column("Age", ".metadata.creationTimestamp", "date"),
        # A date column prints times ahead as <invalid>.
        _column("Next run", ".status.nextScheduleTime", wide=True),
        _column("Duration", ".status.lastRun.durationSeconds", "number", wide=True),
        _column("Failures", ".status.consecutiveFailures", "integer", wide=True),
        _column("Message", ".status.lastRun.message", wide=True),
        _column("Trace", ".status.lastRun.traceID", wide=True),
    ),
)

REVOCATION = Definition(
    kind=REVOCATION_KIND,
    plural=REVOCATION_PLURAL,
    singular=REVOCATION_SINGULAR,
    short_name=REVOCATION_SHORT_NAME,
    description="A SessionRevocation logs a user out, or ends one session, once: a Job made from it deletes the "
    "sessions from all stores of a SessionPolicy. Its status says how many were deleted; then it deletes itself.",
    spec=SessionRevocationSpec,
    status=SessionRevocationStatus,
    # Never the user: who may list revocations on a shared screen need not show whose they are.
    columns=(
        _column("Policy", ".spec.policyName"),
        _column("Complete", ".status.conditions[?(@.type=='Complete')].status"),
        _column("Status", ".status.conditions[?(@.type=='Complete')].reason"),
        _column("Revoked", ".status.sessions.revoked", "integer"),
        _column("Age", ".metadata.creationTimestamp", "date"),
        _column("Left", ".status.sessions.left", "integer", wide=True),
        _column("Job", ".status.jobName", wide=True),
        _column("Message", ".status.conditions[?(@.type=='Complete')].message", wide=True),
    ),
    is_immutable=True,
)

DEFINITIONS = (POLICY, REVOCATION)


def crd(definition: Definition = POLICY) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind as a manifest."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{definition.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": definition.kind,
                "listKind": f"{definition.kind}List",
                "plural": definition.plural,
                "singular": definition.singular,
                "shortNames": [definition.short_name],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": list(definition.columns),
                    "schema": {"openAPIV3Schema": _resource_schema(definition)},
                }
            ],
        },
    }


def spec_schema(definition: Definition) -> dict[str, Any]:
    """The structural schema of a kind's spec."""
    schema = model_schema(definition.spec)
    if definition.is_immutable:
        # A rule over two states, so it is no rule of the model.
        immutable = {"rule": "self == oldSelf", "message": "the spec cannot be changed; make another resource"}
        schema["x-kubernetes-validations"] = [*schema.get("x-kubernetes-validations", []), immutable]
    return schema


def _resource_schema(definition: Definition) -> dict[str, Any]:
    return {
        "type": "object",
        "description": definition.description,
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec_schema(definition),
            "status": model_schema(definition.status),
        },
        "required": ["spec"],
    }


def model_schema(model: type[Model]) -> dict[str, Any]:
    """The structural schema of a model, with its descriptions, defaults and CEL rules."""
    document = model.model_json_schema(by_alias=True, mode="validation", schema_generator=_Generator)
    definitions = document.pop("$defs", {})
    return _structural(document, definitions)


class _Generator(GenerateJsonSchema):
    """Adds a model's CEL rules, and what its fields mean, to its JSON schema."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        result = super().model_schema(schema)
        model = schema["cls"]
        if issubclass(model, Model):
            for name, text in descriptions(model).items():
                result["properties"][model.model_fields[name].alias]["description"] = text
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
