"""The strategies that a policy can pin."""

from __future__ import annotations

from collections.abc import Mapping

from policy.spec import SessionPolicySpec

_NAMES = ("ExpiryIndex", "PhysicalRanges", "IdOrder")


def pinned() -> Mapping[str, Mapping[str, str]]:
    """By name, the section `cleanup` that pins it."""
    known = "cleanup" in SessionPolicySpec.model_fields
    return {name: {"strategy": name} for name in _NAMES} if known else {}
