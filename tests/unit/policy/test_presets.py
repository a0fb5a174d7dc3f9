"""R3.4: every preset is complete, and said where people look for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy.presets import DatabasePreset, RedisPreset
from policy.stores import DatabaseStore, RedisStore

DOCS = Path(__file__).parents[3] / "docs"
SECRET = {"secretKeyRef": {"name": "s", "key": "k"}}


@pytest.mark.parametrize("preset", list(DatabasePreset))
def test_a_database_preset_needs_nothing_else(preset: DatabasePreset) -> None:
    store = DatabaseStore.model_validate({"urlFrom": SECRET, "preset": preset.value})
    assert store.session_table == preset.table
    assert f"\n| `{preset.value}` |" in (DOCS / "how-to" / "known-applications.md").read_text()


@pytest.mark.parametrize("preset", list(RedisPreset))
def test_a_redis_preset_needs_nothing_else(preset: RedisPreset) -> None:
    store = RedisStore.model_validate({"urlFrom": SECRET, "preset": preset.value})
    assert (store.keys, store.fields) == (preset.layout.keys, preset.layout.fields)
    assert f"`{preset.value}`" in (DOCS / "reference" / "redis.md").read_text()


def test_what_a_policy_maps_itself_wins_over_the_preset() -> None:
    named = DatabaseStore.model_validate({"urlFrom": SECRET, "preset": "SpringJdbc", "table": {"schema": "web"}})
    table = named.session_table
    assert (table.schema, table.name, table.case_sensitive) == ("web", "SPRING_SESSION", False)
    columns = {"id": {"name": "sid"}, "lastAccessedAt": {"name": "used"}}
    mapped = DatabaseStore.model_validate(
        {"urlFrom": SECRET, "preset": "Laravel", "table": {"name": "Logins", "columns": columns}}
    ).session_table
    assert (mapped.name, mapped.columns.id.name, mapped.case_sensitive) == ("Logins", "sid", True)
    assert DatabasePreset.LARAVEL.table.idle_seconds
    assert mapped.idle_seconds is None
    keyed = RedisStore.model_validate({"urlFrom": SECRET, "preset": "ConnectRedis", "keys": {"session": "s:{id}"}})
    assert (keyed.keys.session, keyed.fields) == ("s:{id}", RedisPreset.CONNECT_REDIS.layout.fields)
