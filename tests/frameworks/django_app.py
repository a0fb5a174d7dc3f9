"""A Django application that keeps sessions: run as a process of its own, because Django's settings are a process's.

Standard input: {database, redis?, engine, useTz, timeZone, action: "create" | "write" | "find" | "clear", sessions}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from tests.support.patience import PATIENCE_SECONDS

_ENGINES = {
    "postgresql": "django.db.backends.postgresql",
    "mysql": "django.db.backends.mysql",
    "sqlite": "django.db.backends.sqlite3",
}


class DjangoApp:
    """The application, from outside.

    Args:
        database: URL of the database.
        redis: URL of its cache, where it has one.
        engine: db or cached_db.
        use_tz: Django's USE_TZ.
        time_zone: Django's TIME_ZONE.
    """

    def __init__(
        self,
        database: str,
        redis: str | None = None,
        *,
        engine: str = "db",
        use_tz: bool = True,
        time_zone: str = "UTC",
    ) -> None:
        self._ask = {"database": database, "redis": redis, "engine": engine, "useTz": use_tz, "timeZone": time_zone}
        self._run("create", {})

    def write(self, sessions: Mapping[str, int]) -> dict[str, str]:
        """Has Django write sessions: name -> seconds they have left. Returns name -> session key."""
        return {str(name): str(key) for name, key in self._run("write", sessions).items()}

    def find(self, keys: Mapping[str, str]) -> dict[str, list[str]]:
        """Of the sessions (name -> key), those that Django loads with their content, and where any of them is left."""
        found: dict[str, list[str]] = self._run("find", keys)
        return found

    def clear(self) -> float:
        """Has Django's own cleaner, `clearsessions`, do its work. Returns how many seconds that took it."""
        return float(self._run("clear", {})["seconds"])

    def _run(self, action: str, sessions: Mapping[str, Any]) -> dict[str, Any]:
        finished = subprocess.run(
            [sys.executable, "-m", "tests.frameworks.django_app"],
            input=json.dumps({**self._ask, "action": action, "sessions": dict(sessions)}),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert finished.returncode == 0, finished.stderr
        answer: dict[str, Any] = json.loads(finished.stdout)
        return answer


def _set_up(ask: Mapping[str, Any]) -> None:
    import django
    from django.conf import settings

    # What Django does itself where its settings are a module.
    os.environ["TZ"] = ask["timeZone"]
    time.tzset()
    url = make_url(ask["database"])
    kind = url.get_backend_name()
    if kind == "mysql":
        import pymysql

        pymysql.install_as_MySQLdb()
    database = {
        "ENGINE": _ENGINES[kind],
        "NAME": url.database,
        "USER": url.username or "",
        "PASSWORD": url.password or "",
        "HOST": url.host or "",
        "PORT": str(url.port or ""),
    }
    caches: dict[str, Any] = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    if ask["redis"]:
        caches["default"] = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": ask["redis"]}
    settings.configure(
        DATABASES={"default": database},
        CACHES=caches,
        INSTALLED_APPS=["django.contrib.sessions"],
        SESSION_ENGINE=f"django.contrib.sessions.backends.{ask['engine']}",
        SECRET_KEY="of no use to anybody",
        USE_TZ=ask["useTz"],
        TIME_ZONE=ask["timeZone"],
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    )
    django.setup()


def _create() -> dict[str, Any]:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    return {}


def _write(sessions: Mapping[str, int]) -> dict[str, Any]:
    from importlib import import_module

    from django.conf import settings
    from django.contrib.sessions.models import Session
    from django.utils import timezone

    keys = {}
    for name, seconds in sessions.items():
        store = import_module(settings.SESSION_ENGINE).SessionStore()
        store["name"] = name
        store.set_expiry(3600)
        store.save()
        keys[name] = store.session_key
        # A session that ends while its copy in the cache is still there, as after a change of the timeout.
        ends = timezone.now() + timedelta(seconds=seconds)
        Session.objects.filter(session_key=store.session_key).update(expire_date=ends)
    return keys


def _find(keys: Mapping[str, str]) -> dict[str, Any]:
    from importlib import import_module

    from django.conf import settings
    from django.contrib.sessions.models import Session
    from django.core.cache import cache

    engine = import_module(settings.SESSION_ENGINE)
    names = {key: name for name, key in keys.items()}
    rows = [names[key] for key in Session.objects.filter(session_key__in=names).values_list("session_key", flat=True)]
    prefix = getattr(engine, "KEY_PREFIX", "")
    cached = [name for name, key in keys.items() if prefix and cache.get(prefix + key) is not None]
    loaded = [name for name, key in keys.items() if engine.SessionStore(key).load().get("name") == name]
    return {"loaded": sorted(loaded), "rows": sorted(rows), "cached": sorted(cached)}


def _clear() -> dict[str, Any]:
    from django.core.management import call_command
    from django.db import connection

    connection.ensure_connection()
    began = time.perf_counter()
    call_command("clearsessions")
    return {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    request = json.load(sys.stdin)
    _set_up(request)
    match request["action"]:
        case "create":
            result = _create()
        case "write":
            result = _write(request["sessions"])
        case "clear":
            result = _clear()
        case _:
            result = _find(request["sessions"])
    json.dump(result, sys.stdout)
