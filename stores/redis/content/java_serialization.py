"""What Java's own serialisation makes of the few values that Spring Session keeps; anything else is not known.

None of it is valid UTF-8, so it cannot be mistaken for the text of another application.
"""

from __future__ import annotations

JAVA_TEXT = b"\xac\xed\x00\x05t"
"""What every java.lang.String begins with."""

_LONG = b"\xac\xed\x00\x05sr\x00\x0ejava.lang.Long"
_LENGTH_BYTES = 2
_LONG_BYTES = 8


def decode_text(value: bytes) -> str | None:
    """The text of a java.lang.String; None if it is none."""
    start = len(JAVA_TEXT) + _LENGTH_BYTES
    if not value.startswith(JAVA_TEXT) or len(value) != start + int.from_bytes(value[len(JAVA_TEXT) : start], "big"):
        return None
    try:
        return value[start:].decode()
    except UnicodeDecodeError:
        return None


def decode_long(value: bytes) -> int | None:
    """The number in a java.lang.Long; None if it is none."""
    return int.from_bytes(value[-_LONG_BYTES:], "big", signed=True) if value.startswith(_LONG) else None
