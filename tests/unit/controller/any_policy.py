"""Any valid spec, drawn from the CustomResourceDefinition itself: a field that is added there is drawn, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hypothesis import strategies as st

from policy.crd import crd
from policy.manifest import InvalidPolicyError, parse_policy
from tests.unit.controller.builders import policy_resource

Schema = Mapping[str, Any]


def spec_schema() -> Schema:
    """The schema of spec."""
    (version,) = crd()["spec"]["versions"]
    schema: Schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def field_paths(schema: Schema, prefix: str = "") -> Iterator[str]:
    """Every field of a schema, by its path; maps and lists end in []."""
    for name, field in schema.get("properties", {}).items():
        yield f"{prefix}{name}"
        yield from field_paths(field, f"{prefix}{name}.")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from field_paths(schema[key], prefix[:-1] + "[].")


# What a person would write to get out of the field: other variables, shells, templates, YAML, JSON.
_HOSTILE = [
    "$(DATABASE_URL)",
    "$$x",
    "$(SESSION_POLICY_JOB_UID)",
    "`id`",
    "{{ x }}",
    '"]}}',
    "../..",
    "-c",
    "\n- x: y",
    "é",
]
_TEXT = st.sampled_from(_HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_QUANTITY = st.sampled_from([1, "1", "0.5", "100m", "64Mi", "1Gi", "2E", "-1", "1e3", 10**18])

# Where the schema alone would seldom be met.
_SPECIAL: Mapping[str, st.SearchStrategy[Any]] = {
    "stores.redis.keys.session": st.builds("{}x{{id}}".format, st.sampled_from(_HOSTILE)),
    "stores.redis.keys.userIndex": st.builds("{}u{{user}}".format, st.sampled_from(_HOSTILE)),
    "stores.redis.keys.accessLog": st.builds("{}l{{id}}".format, st.sampled_from(_HOSTILE)),
    "rules[]": st.sampled_from([{"type": "WeakId", "minBits": 64}, {"type": "Revoked", "action": "Delete"}]),
    "alerts.runbookUrl": st.sampled_from(["https://example.org/$(REDIS_URL)", "http://x"]),
}


def _drawn(schema: Schema, path: str = "") -> st.SearchStrategy[Any]:
    if path in _SPECIAL:
        return _SPECIAL[path]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return _QUANTITY
    drawers: Mapping[str, Callable[[Schema, str], st.SearchStrategy[Any]]] = {
        "object": _object,
        "array": lambda s, p: st.lists(_drawn(s["items"], f"{p}[]"), min_size=s.get("minItems", 0), max_size=3),
        "string": _string,
        "integer": lambda s, _: st.integers(s.get("minimum", 0), s.get("maximum", 2**31)),
        "number": lambda s, _: st.floats(s.get("minimum", 0), s.get("maximum", 1e6)),
        "boolean": lambda _s, _p: st.booleans(),
    }
    return drawers[schema["type"]](schema, path)


def _object(schema: Schema, path: str) -> st.SearchStrategy[Any]:
    if "properties" not in schema:
        return st.dictionaries(_TEXT, _drawn(schema["additionalProperties"], f"{path}[]"), max_size=3)
    prefix = f"{path}." if path else ""
    drawn = {name: _drawn(field, f"{prefix}{name}") for name, field in schema["properties"].items()}
    required = {name: drawn.pop(name) for name in schema.get("required", [])}
    return st.fixed_dictionaries(required, optional=drawn)


def _string(schema: Schema, _path: str) -> st.SearchStrategy[Any]:
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True)
    low, high = schema.get("minLength", 0), schema.get("maxLength", 10**6)
    return _TEXT.filter(lambda text: low <= len(text) <= high)


def _is_valid(spec: dict[str, Any]) -> bool:
    try:
        parse_policy(policy_resource(**spec))
    except InvalidPolicyError:
        return False
    return True


ANY_SPEC: st.SearchStrategy[dict[str, Any]] = _drawn(spec_schema()).filter(_is_valid)
