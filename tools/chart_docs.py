"""Writes what the chart says of its values, values.yaml and the table in its README, from values.schema.json.

The schema is the only place where a value is described: `make chart-docs`.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Schema = dict[str, Any]

WIDTH = 118
BEGIN = "<!-- values: written by `make chart-docs` -->"
END = "<!-- end of values -->"
HEADER = """\
# Configuration of the session-policy-operator chart. values.schema.json checks it: a misspelt name is an error.
# Written from that schema by `make chart-docs`: describe a value and set its default there.
"""


@dataclass(frozen=True)
class Value:
    """A value of the chart, or a group of values.

    Attributes:
        path: the keys that lead to it.
        schema: what it may be; references are resolved.
        description: what it means.
        default: what it is unless it is set; None for a group.
        is_group: whether it only holds other values.
    """

    path: tuple[str, ...]
    schema: Schema
    description: str
    default: Any
    is_group: bool

    @property
    def name(self) -> str:
        """The path as `helm --set` writes it."""
        return ".".join(self.path)


def values_of(schema: Schema) -> Iterator[Value]:
    """All values and groups of a schema, each group before its values.

    Raises:
        ValueError: one has no description, or no default.
    """
    for key, node in schema["properties"].items():
        yield from _values((key,), node, {}, schema["definitions"])


def values_yaml(schema: Schema) -> str:
    """The chart's values.yaml."""
    lines = [HEADER]
    for value in values_of(schema):
        indent = "  " * (len(value.path) - 1)
        if len(value.path) == 1 and len(lines) > 1:
            lines.append("")
        lines += textwrap.wrap(
            value.description,
            WIDTH,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# ",
            break_on_hyphens=False,
        )
        key = value.path[-1]
        if value.is_group:
            lines.append(f"{indent}{key}:")
        else:
            text = yaml.safe_dump({key: value.default}, sort_keys=False, width=WIDTH, default_flow_style=False)
            lines.append(textwrap.indent(text.rstrip().replace("''", '""'), indent))
    return "\n".join(lines) + "\n"


def values_table(schema: Schema) -> str:
    """The values as a Markdown table for each group at the top, and one for those in none."""
    found = list(values_of(schema))
    alone = [value for value in found if len(value.path) == 1 and not value.is_group]
    parts = ["### General\n\n" + _table(alone)]
    for group in (value for value in found if len(value.path) == 1 and value.is_group):
        members = [value for value in found if value.path[0] == group.path[0] and not value.is_group]
        parts.append(f"### {group.name}\n\n{group.description}\n\n" + _table(members))
    return "\n".join(parts)


def with_values(readme: str, table: str) -> str:
    """The README with its table of values replaced."""
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the README has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


def documents(chart: Path) -> dict[Path, str]:
    """What each written file of the chart must hold."""
    schema = json.loads((chart / "values.schema.json").read_text())
    readme = chart / "README.md"
    return {
        chart / "values.yaml": values_yaml(schema),
        readme: with_values(readme.read_text(), values_table(schema)),
    }


def main(chart: Path) -> None:
    """Write them."""
    for path, text in documents(chart).items():
        path.write_text(text)


def _values(path: tuple[str, ...], node: Schema, overrides: Schema, definitions: Schema) -> Iterator[Value]:
    schema = _resolve(node, definitions)
    name = ".".join(path)
    if "description" not in node:
        raise ValueError(f"{name} has no description")
    is_group = _is_group(schema)
    given = {**node, **overrides}
    if not is_group and "default" not in given:
        raise ValueError(f"{name} has no default")
    yield Value(path, schema, node["description"], given.get("default"), is_group)
    if is_group:
        defaults = given.get("default", {})
        for key, child in schema["properties"].items():
            override = {"default": defaults[key]} if key in defaults else {}
            yield from _values((*path, key), child, override, definitions)


def _resolve(node: Schema, definitions: Schema) -> Schema:
    reference = node.get("$ref")
    return node if reference is None else definitions[reference.rpartition("/")[2]]


def _is_group(schema: Schema) -> bool:
    # Objects of Kubernetes' own, such as an affinity, have properties as well, but Kubernetes describes them.
    properties = schema.get("properties", {})
    return bool(properties) and any("description" in child for child in properties.values())


def _table(values: list[Value]) -> str:
    rows = ["| value | default | type | meaning |", "|---|---|---|---|"]
    for value in values:
        default = json.dumps(value.default, ensure_ascii=False)
        cells = (f"`{value.name}`", f"`{default}`", _type(value.schema), value.description)
        rows.append("| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(choice).strip(chr(34))}`" for choice in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"] if "const" not in choice)
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    kind: str = schema["type"]
    if kind == "integer" and "minimum" in schema:
        return f"integer, {schema['minimum']} to {schema['maximum']}"
    return {"array": "list"}.get(kind, kind)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
