"""The strategies that a policy can pin."""

from __future__ import annotations

from collections.abc import Mapping

from policy.spec import CleanupStrategy

_NAMES = [strategy.value for strategy in CleanupStrategy if strategy is not CleanupStrategy.AUTO]


def pinned() -> Mapping[str, Mapping[str, str]]:
    """By name, the section `cleanup` that pins it."""
    return {name: {"strategy": name} for name in _NAMES}
