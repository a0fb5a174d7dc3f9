"""Drift detection: whether a CronJob is still what was applied, and how to revert what others changed.

Two things are compared. What the desired manifest states must be so. What it does not state (a field somebody added,
such as ``hostNetwork``) is distinguished from the server's defaults by field ownership: only this controller may own
anything below ``spec``, and the controller nothing that it does not state. An addition that hides its owner, written
under this controller's name or with emptied managedFields, is not detected; it needs the right to write CronJobs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from controller.settings.quantity import quantity_value
from policy.names import FIELD_MANAGER

# Maps with keys of the user's choice: an additional key is as wrong as a missing one.
_FREE_MAPS: Final = frozenset({"nodeSelector", "requests", "limits", "labels", "annotations"})
_QUANTITIES: Final = frozenset({"requests", "limits"})
_EMPTY: Final[tuple[Any, ...]] = (None, "", [], {})

_Fields = Mapping[str, Any]


def is_owned_by(cron_job: Mapping[str, Any], uid: str) -> bool:
    """Whether the CronJob's controlling owner is the policy of this UID."""
    owners = cron_job["metadata"].get("ownerReferences") or []
    return any(owner.get("controller") and owner.get("uid") == uid for owner in owners)


def matches(desired: Mapping[str, Any], observed: Mapping[str, Any]) -> bool:
    """Whether the CronJob is what the desired manifest states.

    Labels and owner references that others added to its metadata do not matter.
    """
    wanted, found = desired["metadata"], observed["metadata"]
    # After `take_over` the controller owns what others added: that shows even if it is killed before the apply.
    applied = [entry["fieldsV1"].get("f:spec", {}) for entry in found.get("managedFields") or [] if _is_applied(entry)]
    return all(_states(desired["spec"], fields) for fields in applied) and (
        _same(wanted["labels"], found.get("labels"))
        and all(any(_same(w, f) for f in found.get("ownerReferences") or []) for w in wanted["ownerReferences"])
        and _same(desired["spec"], observed["spec"])
    )


def foreign_managers(observed: Mapping[str, Any]) -> list[str]:
    """Names of the field managers other than this controller that own something below ``spec``."""
    return sorted({entry["manager"] for entry in _spec_entries(observed) if entry["manager"] != FIELD_MANAGER})


def take_over(observed: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """A JSON patch that makes this controller's applied set the owner of everything below ``spec``.

    Server-side apply removes only what its manager applied before. After this patch it removes whatever the next
    apply does not state, whoever added it. None if nothing is to be taken over. The patch fails if the CronJob has
    changed since it was observed.
    """
    entries = observed["metadata"].get("managedFields") or []
    foreign = _spec_entries(observed)
    if not foreign:
        return None
    applied: dict[str, Any] = {}
    kept: list[dict[str, Any]] = []
    for entry in entries:
        fields = entry.get("fieldsV1") or {}
        if _is_applied(entry) or (entry in foreign and entry["manager"] == FIELD_MANAGER):
            applied = _union(applied, fields)
        elif entry in foreign:
            applied = _union(applied, {"f:spec": fields["f:spec"]})
            rest = {key: value for key, value in fields.items() if key != "f:spec"}
            kept += [{**entry, "fieldsV1": rest}] if rest else []
        else:
            kept.append(entry)
    times = [entry["time"] for entry in entries if entry.get("time")]
    ours = {
        "manager": FIELD_MANAGER,
        "operation": "Apply",
        "apiVersion": observed["apiVersion"],
        "fieldsType": "FieldsV1",
        "fieldsV1": applied,
        # The time of the last change of the spec is needed: runs due before it do not count as missed.
        **({"time": max(times)} if times else {}),
    }
    return [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": observed["metadata"]["resourceVersion"]},
        {"op": "replace", "path": "/metadata/managedFields", "value": [ours, *kept]},
    ]


def _spec_entries(observed: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of managedFields, other than what this controller applied, that own something below spec."""
    entries: Sequence[Mapping[str, Any]] = observed["metadata"].get("managedFields") or []
    return [e for e in entries if not _is_applied(e) and "f:spec" in (e.get("fieldsV1") or {})]


def _is_applied(entry: Mapping[str, Any]) -> bool:
    return entry["manager"] == FIELD_MANAGER and entry["operation"] == "Apply" and not entry.get("subresource")


def _union(one: _Fields, other: _Fields) -> dict[str, Any]:
    """Two sets of fields as one; a set is a tree whose leaves are empty."""
    return {key: _union(one.get(key, {}), other.get(key, {})) for key in [*one, *(k for k in other if k not in one)]}


def _states(part: Any, fields: _Fields) -> bool:
    """Whether this part of a manifest states every field of the set."""
    for key, below in fields.items():
        if key == ".":
            continue
        kind, _, name = key.partition(":")
        if kind == "f" and isinstance(part, Mapping) and name in part:
            stated = _states(part[name], below)
        elif kind == "k" and isinstance(part, list):
            keys = json.loads(name)
            stated = any(keys.items() <= item.items() and _states(item, below) for item in part)
        else:
            stated = kind == "v" and isinstance(part, list) and json.loads(name) in part
        if not stated:
            return False
    return True


def _same(desired: Any, observed: Any, key: str = "") -> bool:
    if desired in _EMPTY:
        return observed in _EMPTY
    if isinstance(desired, Mapping):
        if not isinstance(observed, Mapping) or (key in _FREE_MAPS and desired.keys() != observed.keys()):
            return False
        if key in _QUANTITIES:
            return all(quantity_value(value) == quantity_value(observed[name]) for name, value in desired.items())
        return all(_same(value, observed.get(name), name) for name, value in desired.items())
    if isinstance(desired, list):
        return (
            isinstance(observed, list)
            and len(desired) == len(observed)
            and all(_same(d, o) for d, o in zip(desired, observed, strict=True))
        )
    return bool(desired == observed)
