"""Hashes session and user ids for logs and alerts with a key (HMAC).

User ids are personal data, and a session id is a credential. With the same key a session has the same hash in every
log, so that an auditor can follow it; without the key nobody can test ids against a hash.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping
from typing import Any, Self

from policy.names import LOG_HASH_KEY_ENV

# 80 bits: with 10**9 sessions, the chance that two share a hash is below one in a million.
_HEX_DIGITS = 20
_RANDOM_KEY_BYTES = 32
_MIN_KEY_BYTES = 16

SHORT_KEY = f"{LOG_HASH_KEY_ENV} is shorter than {_MIN_KEY_BYTES} bytes, so ids could be found by trying"
SHORT_KEY_REMEDY = "put a random key into the Secret, e.g. from `openssl rand -hex 32`"


def hash_key(environment: Mapping[str, str]) -> bytes:
    """The key in the environment; empty if there is none. A Secret may hold any bytes."""
    return os.fsencode(environment.get(LOG_HASH_KEY_ENV, "").strip())


def is_short_key(key: bytes) -> bool:
    """Whether there is a key, and it is too short."""
    return 0 < len(key) < _MIN_KEY_BYTES


class IdHasher:
    """Hashes ids.

    Args:
        key: of the installation; without one a random key, so that hashes are only valid for one run.
    """

    def __init__(self, key: bytes | None = None) -> None:
        # Keyed once and copied for each id: a run may hash millions.
        self._keyed = hmac.new(key or secrets.token_bytes(_RANDOM_KEY_BYTES), digestmod="sha256")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], log: Any) -> Self:
        """With the key in the environment. A short key is used all the same, with a warning."""
        key = hash_key(environment)
        if is_short_key(key):
            log.warning("hash key too short", because=SHORT_KEY, remedy=SHORT_KEY_REMEDY)
        return cls(key)

    def session(self, session_id: object) -> str:
        """The hash of a session id, in its text form as in Redis keys."""
        return "s:" + self._digest("session:", session_id)

    def user(self, user_id: object) -> str | None:
        """The hash of a user id; None for a session without a user."""
        return None if user_id is None else "u:" + self._digest("user:", user_id)

    def _digest(self, kind: str, value: object) -> str:
        # A lone surrogate, which UTF-8 cannot encode, is hashed as well.
        digest = self._keyed.copy()
        digest.update(f"{kind}{value}".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:_HEX_DIGITS]
