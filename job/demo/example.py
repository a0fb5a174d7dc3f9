"""The policy that the demo runs: examples/policy.yaml."""

from __future__ import annotations

from pathlib import Path

from policy.manifest import SessionPolicy, load_policy
from policy.presets import DatabasePreset
from policy.stores import RedisStore
from stores.model.errors import ConfigurationError

#: How people know it, wherever the text comes from.
NAME = "examples/policy.yaml"

_IN_CHECKOUT = Path(__file__).parents[2] / NAME
# A copy, because a wheel has no examples; a test holds the two equal.
_IN_PACKAGE = Path(__file__).with_name("policy.yaml")


def example_policy() -> SessionPolicy:
    """The example: from the checkout, so that an edit shows in the next demo; else the copy in this package.

    Raises:
        InvalidPolicyError: it was edited, and no longer is a policy.
    """
    path = _IN_CHECKOUT if _IN_CHECKOUT.is_file() else _IN_PACKAGE
    return load_policy(path.read_text(encoding="utf-8"))


def redis_of(policy: SessionPolicy) -> RedisStore:
    """How the policy's Redis is laid out.

    Raises:
        ConfigurationError: it was edited, and has stores that the demo cannot fill.
    """
    stores = policy.spec.stores
    if stores.redis is None:
        raise ConfigurationError(f"{NAME}: the demo needs stores.redis; restore it")
    if stores.database is None or stores.database.session_table != DatabasePreset.DEFAULT.table:
        raise ConfigurationError(f"{NAME}: the demo fills the default table only; remove stores.database.table")
    return stores.redis
