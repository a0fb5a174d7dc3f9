"""Sessions written to Redis as fast as it takes them: the bytes of the protocol, and no replies."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

_AT_ONCE = 1 << 20
_TTL = b"2592000"


def command(*words: bytes) -> bytes:
    """A command as it is sent."""
    return b"*%d\r\n%b" % (len(words), b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))


def session_key(session: bytes, user: bytes, created: int, used: int) -> bytes:
    """The command that writes a session, as JSON."""
    content = b'{"userId":"%b","createdAt":%d,"lastAccessedAt":%d,"cart":"%b"}' % (user, created, used, session)
    return command(b"SET", b"sess:" + session, content, b"EX", _TTL)


def index_entry(session: bytes, user: bytes) -> bytes:
    """The command that adds a session to its user's index."""
    return command(b"SADD", b"user_sess:" + user, session)


def access_log(session: bytes, entries: Iterable[dict[str, Any]]) -> bytes:
    """The command that writes an access log, the newest entry first."""
    return command(b"RPUSH", b"access_log:" + session, *(json.dumps(entry).encode() for entry in entries))


def send(url: str, commands: Iterable[bytes]) -> None:
    """Sends commands; returns when all are done.

    Raises:
        RuntimeError: Redis said something else than it should.
    """
    with _silent(url) as connection:
        for piece in _pieces(commands):
            connection.sendall(piece)


@contextmanager
def _silent(url: str) -> Iterator[socket.socket]:
    at = urlsplit(url)
    with socket.create_connection((at.hostname or "", at.port or 6379)) as connection:
        connection.sendall(command(b"CLIENT", b"REPLY", b"OFF"))
        yield connection
        connection.sendall(command(b"CLIENT", b"REPLY", b"ON"))
        if (reply := connection.recv(64)) != b"+OK\r\n":
            raise RuntimeError(f"Redis answered {reply!r}")


def _pieces(commands: Iterable[bytes]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for each in commands:
        waiting.append(each)
        size += len(each)
        if size >= _AT_ONCE:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)
