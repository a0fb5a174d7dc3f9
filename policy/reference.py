"""The reference of a kind's fields, as Markdown, from the same schema that the API server gets."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from policy.crd import DEFINITIONS, POLICY, Definition, model_schema, spec_schema
from policy.names import API_VERSION


def reference(definition: Definition = POLICY) -> str:
    """The whole page of a kind."""
    spec = spec_schema(definition)
    parts = [
        f"# {definition.kind} ({API_VERSION})",
        f"Generated from the models (`make crds`); `kubectl explain {definition.short_name}.spec` says the same in a "
        "cluster.",
        "## spec",
        *_table(spec),
        "Rules over several fields, checked by the API server and by the command line:",
        *(f"- {message}" for message in _messages(spec)),
        "",
        "## status",
        *_table(model_schema(definition.status)),
    ]
    return "\n".join(parts) + "\n"


def _table(schema: Mapping[str, Any]) -> Iterator[str]:
    yield "| field | type | default | meaning |"
    yield "|---|---|---|---|"
    for path, field in _fields(schema):
        yield f"| `{path}` | {_kind(field)} | {_default(field)} | {_escape(field.get('description', ''))} |"
    yield ""


def _fields(schema: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield path, {**field, "required": name in required}
        yield from _fields(field, f"{path}.")
        if "items" in field:
            yield from _fields(field["items"], f"{path}[].")


def _kind(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type", "integer or string")
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None and high is not None:
        return f"{kind}, {low:,} to {high:,}"
    if kind == "array":
        return f"list of {field['items'].get('type', 'values')}s"
    if "additionalProperties" in field:
        return "map"
    return str(kind)


def _default(field: Mapping[str, Any]) -> str:
    if field["required"]:
        return "required"
    default = field.get("default")
    if default is None or isinstance(default, dict):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _messages(schema: Mapping[str, Any]) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield rule["message"]
    for field in schema.get("properties", {}).values():
        yield from _messages(field)


if __name__ == "__main__":
    (chosen,) = (d for d in DEFINITIONS if d.singular == sys.argv[1])
    print(reference(chosen), end="")
