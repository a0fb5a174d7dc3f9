"""Applications that keep sessions in Redis alone, each asked in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.frameworks.npm import install
from tests.support.patience import PATIENCE_SECONDS

_NODE = Path(__file__).parent / "redis_node"


class ConnectRedisApp:
    """express-session with connect-redis.

    Args:
        cache: where npm's packages may stay.
        url: of the Redis.
        disable_ttl: connect-redis' option disableTTL.
    """

    def __init__(self, cache: Path, url: str, *, disable_ttl: bool = False) -> None:
        self._directory = install(_NODE, cache)
        self._ask = {"url": url, "disableTTL": disable_ttl}

    def write(self, sessions: Mapping[str, int]) -> None:
        """Has it write sessions: id -> seconds until the cookie expires."""
        self._run("write", sessions)

    def prolong(self, sessions: Mapping[str, int]) -> None:
        """Has it touch sessions, as it does after a request that changed nothing."""
        self._run("prolong", sessions)

    def find(self, ids: Mapping[str, int]) -> set[str]:
        """Which of the sessions it still loads."""
        return set(self._run("find", ids))

    def _run(self, action: str, sessions: Mapping[str, int]) -> list[str]:
        return _asked(
            ["node", "connect_redis.mjs"], {**self._ask, "action": action, "sessions": dict(sessions)}, self._directory
        )


class DjangoCacheApp:
    """Django with its cache sessions.

    Args:
        url: of the Redis.
        prefix: KEY_PREFIX of the cache.
        version: VERSION of the cache.
    """

    def __init__(self, url: str, *, prefix: str = "", version: int = 1) -> None:
        self._ask = {"url": url, "prefix": prefix, "version": version}

    def write(self, lifetimes: list[int]) -> list[str]:
        """Has it write sessions that live for so many seconds. Returns their ids."""
        return self._run("write", lifetimes)

    def find(self, ids: list[str]) -> set[str]:
        """Which of the sessions it still loads."""
        return set(self._run("find", ids))

    def _run(self, action: str, given: list[Any]) -> list[str]:
        command = [sys.executable, "-m", "tests.frameworks.redis_apps"]
        return _asked(command, {**self._ask, "action": action, "given": given}, Path(__file__).parents[2])


def _asked(command: list[str], ask: Mapping[str, Any], directory: Path) -> list[str]:
    finished = subprocess.run(
        command,
        input=json.dumps(ask),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        cwd=directory,
    )
    assert finished.returncode == 0, finished.stderr
    answer: list[str] = json.loads(finished.stdout)
    return answer


def _django(ask: Mapping[str, Any]) -> list[str]:
    import django
    from django.conf import settings

    settings.configure(
        CACHES={
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": ask["url"],
                "KEY_PREFIX": ask["prefix"],
                "VERSION": ask["version"],
            }
        },
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        SECRET_KEY="test",
        USE_TZ=True,
    )
    django.setup()
    from django.contrib.sessions.backends.cache import SessionStore

    if ask["action"] == "find":
        return [key for key in ask["given"] if SessionStore(key).get("cart") == "x"]
    written = []
    for seconds in ask["given"]:
        session = SessionStore()
        session["cart"] = "x"
        session.set_expiry(seconds)
        session.create()
        session.save()
        written.append(str(session.session_key))
    return written


if __name__ == "__main__":
    print(json.dumps(_django(json.loads(sys.stdin.read()))))
