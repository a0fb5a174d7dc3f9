"""What a session's content says of it. Content belongs to the application: nothing in it can make a run fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pydantic_core

from policy.stores import RedisFields, TimeField
from stores.model.time_encoding import decode_time
from stores.redis.content.java_serialization import decode_long, decode_text


@dataclass(frozen=True, slots=True)
class Content:
    """What is known of a session from its content.

    Attributes:
        user_id: whose session it is; None if not known.
        created_at: when it began; None if not known.
        last_accessed_at: when it was last used; None if not known.
        expires_at: when the application lets it end; None for never, or if not known.
    """

    user_id: str | None = None
    created_at: datetime | None = None
    last_accessed_at: datetime | None = None
    expires_at: datetime | None = None


UNKNOWN = Content()


def hash_fields(fields: RedisFields) -> list[str]:
    """The fields of a hash that :func:`from_hash` wants, in its order."""
    names = [fields.user_id, fields.created_at.name, fields.last_accessed_at.name]
    return [*names, fields.expires_at.name] if fields.expires_at else names


def from_hash(values: Sequence[bytes | None], fields: RedisFields) -> Content:
    """The content of a hash, given the values of :func:`hash_fields`."""
    return _content([_text(value) for value in values], fields)


def from_json(document: bytes | str, fields: RedisFields) -> Content:
    """The content of a JSON text. Nothing is known of a text that is not a JSON object."""
    try:
        # Several times as fast as the standard library's, but it does not take all that applications have written.
        decoded = pydantic_core.from_json(document)
    except ValueError:
        try:
            decoded = json.loads(document)
        except (ValueError, RecursionError):
            return UNKNOWN
    if not isinstance(decoded, dict):
        return UNKNOWN
    return _content([_find(decoded, name) for name in hash_fields(fields)], fields)


def _find(document: dict[str, Any], name: str) -> Any:
    """The field of that name or, where there is none, what its dots lead to."""
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
        return decode_text(value) or decode_long(value)


def _user(value: Any) -> str | None:
    if type(value) is str:
        return value or None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    try:
        return str(value) or None
    except ValueError:  # Python refuses to write out a number of thousands of digits
        return None


def _time(value: Any, field: TimeField) -> datetime | None:
    # A list, an object or a boolean is no time in any encoding.
    if isinstance(value, bool) or not isinstance(value, (float, int, str)):
        return None
    return decode_time(value, field.encoding)
