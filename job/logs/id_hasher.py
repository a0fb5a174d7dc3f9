"""Session and user ids as logs and alerts may show them: keyed hashes, from which nobody finds the way back.

Ids are personal data, and a session id is as good as a password. With the same key the same session has the same hash
in every log, so that an auditor can follow it; without the key nobody can try ids until one fits.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping
from typing import Any, Self

from policy.names import LOG_HASH_KEY_ENV

# 80 bits: among a thousand million sessions, two with one hash are less likely than one in a million.
_HEX_DIGITS = 20
_RANDOM_KEY_BYTES = 32
_SHORTEST_KEY_BYTES = 16


class IdHasher:
    """Hashes ids.

    Args:
        key: of the installation; random where there is none, so that hashes hold for one run only.
    """

    def __init__(self, key: bytes | None = None) -> None:
        # Begun once, and copied for each id: a run may hash millions.
        self._begun = hmac.new(key or secrets.token_bytes(_RANDOM_KEY_BYTES), digestmod="sha256")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], log: Any) -> Self:
        """With the key in the environment. One that is too short is used and warned of: a run is worth more."""
        # A Secret may hold any bytes.
        key = os.fsencode(environment.get(LOG_HASH_KEY_ENV, "").strip())
        if 0 < len(key) < _SHORTEST_KEY_BYTES:
            log.warning(
                "short hash key",
                because=f"{LOG_HASH_KEY_ENV} is shorter than {_SHORTEST_KEY_BYTES} bytes: ids could be found by trying",
                remedy="put a random one into the Secret, e.g. from `openssl rand -hex 32`",
            )
        return cls(key)

    def session(self, session_id: object) -> str:
        """The hash of a session's id, spelt as in Redis."""
        return "s:" + self._digest("session:", session_id)

    def user(self, user_id: object) -> str | None:
        """The hash of a user's id; None for a session without an owner."""
        return None if user_id is None else "u:" + self._digest("user:", user_id)

    def _digest(self, kind: str, value: object) -> str:
        # What UTF-8 cannot write (a lone surrogate) gets a hash of its own.
        digest = self._begun.copy()
        digest.update(f"{kind}{value}".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:_HEX_DIGITS]
