"""Parses session content, JSON or hash. Content belongs to the application: invalid values never make a run fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pydantic_core

from policy.mapping import RedisFields, TimeField
from stores.model.time_encoding import decode_time
from stores.redis.content.java_serialization import decode_long, decode_string


@dataclass(frozen=True, slots=True)
class Content:
    """What a session's content says about the session; unknown values are None.

    Attributes:
        user_id: its user.
        created_at: when it was created.
        last_accessed_at: when it was last used.
        expires_at: the application's own expiry; None also if it has none.
    """

    user_id: str | None = None
    created_at: datetime | None = None
    last_accessed_at: datetime | None = None
    expires_at: datetime | None = None


UNKNOWN = Content()
"""Content of which nothing is known."""


def hash_fields(fields: RedisFields) -> list[str]:
    """The names of the fields to read, in the order :func:`from_hash` expects."""
    names = [fields.user_id, fields.created_at.name, fields.last_accessed_at.name]
    return [*names, fields.expires_at.name] if fields.expires_at else names


def from_hash(values: Sequence[bytes | None], fields: RedisFields) -> Content:
    """Parses the values of :func:`hash_fields` in a hash."""
    return _content([_text(value) for value in values], fields)


def from_json(document: bytes | str, fields: RedisFields) -> Content:
    """Parses a JSON document; UNKNOWN if it is not a JSON object."""
    try:
        # Several times faster than the json module, but stricter.
        decoded = pydantic_core.from_json(document)
    except ValueError:
        try:
            decoded = json.loads(document)
        except (ValueError, RecursionError):
            return UNKNOWN
    if not isinstance(decoded, dict):
        return UNKNOWN
    return _content([_lookup(decoded, name) for name in hash_fields(fields)], fields)


def _lookup(document: dict[str, Any], name: str) -> Any:
    """The field of that name or, without one, the nested field that its dots lead to."""
    found: Any = document.get(name)
    if found is not None or "." not in name or name in document:
        return found
    found = document
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _content(values: Sequence[Any], fields: RedisFields) -> Content:
    user_id, created_at, last_accessed_at, *rest = values
    return Content(
        user_id=_user(user_id),
        created_at=_time(created_at, fields.created_at),
        last_accessed_at=_time(last_accessed_at, fields.last_accessed_at),
        expires_at=_time(rest[0], fields.expires_at) if fields.expires_at else None,
    )


def _text(value: bytes | None) -> str | int | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return decode_string(value) or decode_long(value)


def _user(value: Any) -> str | None:
    if type(value) is str:
        return value or None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    try:
        return str(value) or None
    except ValueError:  # Python refuses to format an integer of thousands of digits
        return None


def _time(value: Any, field: TimeField) -> datetime | None:
    # Lists, objects and booleans are not times in any encoding.
    if isinstance(value, bool) or not isinstance(value, (float, int, str)):
        return None
    return decode_time(value, field.encoding)
