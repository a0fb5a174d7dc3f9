"""Decodes Java serialization of strings and longs, as Spring Session writes them.

Serialized values are never valid UTF-8, so they cannot be confused with plain text.
"""

from __future__ import annotations

JAVA_STRING = b"\xac\xed\x00\x05t"
"""The first bytes of every serialized java.lang.String."""

_LONG = b"\xac\xed\x00\x05sr\x00\x0ejava.lang.Long"
_LENGTH_BYTES = 2
_LONG_BYTES = 8


def decode_string(value: bytes) -> str | None:
    """The value of a serialized java.lang.String; None for anything else."""
    start = len(JAVA_STRING) + _LENGTH_BYTES
    if not value.startswith(JAVA_STRING) or len(value) != start + int.from_bytes(
        value[len(JAVA_STRING) : start], "big"
    ):
        return None
    try:
        return value[start:].decode()
    except UnicodeDecodeError:
        return None


def decode_long(value: bytes) -> int | None:
    """The value of a serialized java.lang.Long; None for anything else."""
    return int.from_bytes(value[-_LONG_BYTES:], "big", signed=True) if value.startswith(_LONG) else None
