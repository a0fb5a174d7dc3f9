"""How session ids are stored in a column, and how they are written in Redis keys."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

_BITS = 64
_UUID_BYTES = 16
_HEX = re.compile(r"\\x(?:[0-9a-f]{2})*")


class TextInBytes(sa.types.TypeDecorator[str]):
    """Text in a binary column; bytes that are no text are written as a backslash, x and hexadecimal digits."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> bytes | None:
        """From text to what is stored."""
        if value is None:
            return None
        return bytes.fromhex(value[2:]) if _HEX.fullmatch(value) else value.encode()

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> str | None:
        """From what is stored to text."""
        if value is None:
            return None
        stored = value.encode() if isinstance(value, str) else bytes(value)
        try:
            text = stored.decode()
        except UnicodeDecodeError:
            return "\\x" + stored.hex()
        return "\\x" + stored.hex() if _HEX.fullmatch(text) else text


class PaddedText(sa.types.TypeDecorator[str]):
    """Text in a column of fixed length; the spaces that fill it up are not part of it."""

    impl = sa.Text
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> str | None:
        """From what is stored to text."""
        return None if value is None else str(value).rstrip(" ")


class UuidInBytes(sa.types.TypeDecorator[uuid.UUID]):
    """A UUID in 16 bytes, in their usual order."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_bind_param(self, value: uuid.UUID | None, dialect: sa.Dialect) -> bytes | None:
        """From a UUID to what is stored."""
        return None if value is None else value.bytes

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> uuid.UUID | None:
        """From what is stored to a UUID."""
        return None if value is None else uuid.UUID(bytes=bytes(value))


@dataclass(frozen=True, slots=True)
class IdType:
    """How ids are kept.

    Attributes:
        sql: type of the column in statements.
        parse: the id in a Redis key; None where the column cannot hold it.
    """

    sql: sa.types.TypeEngine[Any]
    parse: Callable[[str], Any]


def normal(session_id: Any) -> Any:
    """The id in one form of those that a database may hold equal: it may ignore case and trailing blanks.

    Two ids may share a form and still be two; that is for callers who only need to know that an id is not unknown.
    """
    return session_id.rstrip(" ").casefold() if isinstance(session_id, str) else session_id


def id_problem(kind: sa.types.TypeEngine[Any]) -> str | None:
    """Why ids of this type cannot be compared; None where they can."""
    if isinstance(kind, sa.String | sa.Integer | sa.Uuid | sa.LargeBinary | sa.BINARY | sa.VARBINARY):
        return "ids of an enumeration are not supported" if isinstance(kind, sa.Enum) else None
    return "text, whole numbers, UUIDs and bytes are supported"


def id_type(kind: sa.types.TypeEngine[Any]) -> IdType:
    """How ids are kept in a column of a type, as reflected."""
    if isinstance(kind, sa.Uuid):
        return IdType(sa.Uuid(), _uuid)
    if isinstance(kind, sa.Integer):
        return IdType(sa.BigInteger(), _number)
    if isinstance(kind, sa.BINARY) and kind.length == _UUID_BYTES:
        return IdType(UuidInBytes(), _uuid)
    if isinstance(kind, sa.LargeBinary | sa.BINARY | sa.VARBINARY):
        return IdType(TextInBytes(), _encodable)
    return IdType(PaddedText() if isinstance(kind, sa.CHAR) else sa.Text(), _text)


def _text(key: str) -> str | None:
    return None if "\0" in key else _encodable(key)  # not every database can hold a NUL character


def _encodable(key: str) -> str | None:
    if key.isascii():
        return key
    try:
        key.encode()
    except UnicodeEncodeError:
        return None
    return key


def _number(key: str) -> int | None:
    try:
        value = int(key)
    except ValueError:
        return None
    return None if value.bit_length() >= _BITS else value


def _uuid(key: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(key)
    except ValueError:
        return None
