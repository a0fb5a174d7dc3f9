"""Resolves the session timeouts of a policy (R4.1)."""

from __future__ import annotations

from policy.profiles import DEFAULT_IDLE_SECONDS, PROFILES, Lifetime
from policy.spec import SessionPolicySpec


def resolve_lifetime(spec: SessionPolicySpec) -> Lifetime:
    """The idle and absolute timeout that apply under a policy.

    Explicit fields win over the profile, the profile over the preset's own idle timeout, that over the default.
    """
    if spec.profile:
        base = PROFILES[spec.profile]
    else:
        known = spec.stores.database.session_table.idle_seconds if spec.stores.database else None
        base = Lifetime(idle=known or DEFAULT_IDLE_SECONDS, absolute=None)
    return Lifetime(
        idle=spec.session_timeout_seconds or base.idle,
        absolute=spec.absolute_timeout_seconds or base.absolute,
    )
