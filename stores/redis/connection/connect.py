"""Opens connections from a Redis URL: standalone, Sentinel or Cluster."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import ResponseError
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from policy.stores import RedisMode, RedisStore
from stores.redis.connection.cluster import ClusterConnection
from stores.redis.connection.interface import RedisConnection
from stores.redis.connection.sentinel import MasterDiscovery
from stores.redis.connection.single_server import SingleServerConnection
from stores.redis.connection.url import Address, RedisUrl, parse_url

_CONNECT_TIMEOUT_SECONDS = 5.0
# Longer than any command of ours takes, and short enough to notice a server that hangs.
_SOCKET_TIMEOUT_SECONDS = 15.0


def connect(url: str, store: RedisStore) -> RedisConnection:
    """A connection to the Redis at the URL; it connects on first use.

    Keys and values stay bytes. Commands are not retried here: see :class:`stores.redis.connection.server.RedisServer`.

    Args:
        url: as :func:`stores.redis.connection.url.parse_url` takes it.
        store: stores.redis of the policy: mode and master name.

    Raises:
        ConfigurationError: the URL is invalid. The message does not repeat it: it may hold a password.
    """
    parsed = parse_url(url, store.mode)
    if store.mode is RedisMode.CLUSTER:
        return ClusterConnection(parsed.addresses, partial(_node, parsed))
    if store.mode is RedisMode.SENTINEL:
        assert store.sentinel_master is not None  # the spec's own rule
        return SingleServerConnection(_master(parsed, store.sentinel_master))
    if parsed.socket:
        options = _options(parsed, parsed.username, parsed.password)
        return SingleServerConnection(redis.Redis(unix_socket_path=parsed.socket, db=parsed.database, **options))
    return SingleServerConnection(_node(parsed, parsed.addresses[0]))


def _node(url: RedisUrl, address: Address) -> redis.Redis:
    options = _options(url, url.username, url.password)
    return redis.Redis(host=address.host, port=address.port, db=url.database, **options)


def _master(url: RedisUrl, name: str) -> redis.Redis:
    """A client that asks the sentinels for the master for each new connection."""
    discovery = MasterDiscovery(url.addresses, _options(url, url.sentinel_username, url.sentinel_password))
    options = _options(url, url.username, url.password)
    pool = SentinelConnectionPool(name, discovery, db=url.database, **options)  # type: ignore[no-untyped-call]
    return redis.Redis.from_pool(pool)


def _options(url: RedisUrl, username: str | None, password: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        "username": username,
        "password": password,
        "decode_responses": False,
        "protocol": 2,  # every server and proxy supports it; 3 would add push messages that nobody reads
        "driver_info": None,
        "socket_connect_timeout": _CONNECT_TIMEOUT_SECONDS,
        "socket_timeout": _SOCKET_TIMEOUT_SECONDS,
        # Retries are the policy's (spec.retries.redis); the client's would multiply them.
        "retry": Retry(NoBackoff(), 0),
    }
    if url.tls is not None:
        options |= {"ssl": True, "redis_connect_func": _connect_with_ping, **url.tls}
    return options


def _connect_with_ping(connection: AbstractConnection) -> None:
    """Connects and reads what TLS 1.3 sends after the handshake: redis-py takes unread bytes for an error."""
    connection.on_connect()  # type: ignore[no-untyped-call]
    connection.send_command("PING")  # type: ignore[no-untyped-call]
    with suppress(ResponseError):  # NOPERM is an answer, too
        connection.read_response()
